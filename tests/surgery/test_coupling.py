"""What sizes couple and become: every expectation is worked out by hand."""

import numpy as np
import pytest

from seg_pruning.surgery.coupling import couplings, solve
from seg_pruning.surgery.entries import Fit
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.expressions import Attribute, Computed, Extent

HEADS, WIDTH, DIM = (Attribute("block", name) for name in ("heads", "width", "dim"))
ROOT = np.arange(64)
VALUES = {HEADS: 3, WIDTH: 4, DIM: 12}
HEAD_WIDTH = Computed("//", DIM, HEADS)
INNER = Computed("*", HEADS, WIDTH)


def fit(first, *shape, dim=None, **sizes):
    """Labels from `first` on in this shape; `d1=HEADS` says that `HEADS` was passed for dim 1."""
    labels = np.arange(first, first + np.prod(shape)).reshape(shape)
    known = tuple((int(name[1:]), size) for name, size in sizes.items())
    return Fit(labels, known, labels.ndim - 1 if dim is None else dim)


def rows(first, count, width):
    return np.arange(first, first + count * width).reshape(count, width).tolist()


HEADS_BY_WIDTH = fit(1, 1, 3, 4, d1=HEADS, d2=WIDTH)


@pytest.mark.parametrize(
    ("fits", "expected"),
    [
        ([HEADS_BY_WIDTH], rows(1, 3, 4)),
        ([HEADS_BY_WIDTH, fit(13, 1, 3, 4, d1=HEADS, d2=WIDTH)], rows(1, 6, 4)),
        ([fit(1, 3, 4, d0=HEADS, d1=HEAD_WIDTH)], rows(1, 3, 4)),
        ([fit(1, 12, d0=DIM), fit(13, 3, 4, d0=HEADS, d1=HEAD_WIDTH)], rows(1, 6, 4)),
        ([fit(1, 12, d0=DIM), fit(13, 36, d0=Computed("*", 3, DIM))], rows(1, 4, 12)),
        ([fit(1, 12, d0=DIM), fit(13, 6, d0=Computed("//", DIM, 2))], rows(1, 3, 6)),
        ([fit(1, 8, d0=DIM), fit(9, 12, d0=DIM)], rows(1, 5, 4)),
        # the numbers of heads are fixed by the first axis, so that the second one moves with the width
        ([HEADS_BY_WIDTH, fit(13, 12, d0=INNER)], rows(1, 6, 4)),
        # whole heads leave: the rows are columns of (heads, width), each as long as there are heads
        ([fit(1, 3, 4, dim=0, d0=HEADS, d1=WIDTH)], np.arange(1, 13).reshape(3, 4).T.tolist()),
        ([fit(7, 6, d0=Extent(np.arange(1, 7), 0))], rows(1, 2, 6)),
        ([fit(7, 12, d0=Computed("*", 2, Extent(np.arange(1, 7), 0)))], rows(1, 3, 6)),
        ([fit(7, 3, d0=Computed("//", Extent(np.arange(1, 7), 0), 2))], rows(1, 3, 3)),
    ],
    ids=[
        "heads and width",
        "two such axes",
        "dim // heads",
        "dim and dim // heads",
        "3 * dim",
        "dim // 2",
        "lengths of 8, 12 and 12",
        "heads * width",
        "heads leave",
        "an axis sizes another",
        "an axis sizes one twice as long",
        "an axis sizes its half",
    ],
)
def test_axes_that_one_size_decides_lose_the_same_share(fits, expected):
    (block,) = couplings(fits, VALUES, ROOT)
    assert sorted(block.rows.tolist()) == sorted(expected)


@pytest.mark.parametrize(
    "size",
    [WIDTH, 12, Computed("+", DIM, 1), Computed("-", DIM, WIDTH), INNER],
    ids=["one axis", "a number", "a sum", "a difference", "two factors, both free"],
)
def test_a_size_that_decides_a_single_axis_binds_nothing(size):
    assert couplings([fit(1, 4, d0=size)], VALUES, ROOT) == []


TWICE = np.arange(64)
TWICE[4:7] = TWICE[1:4]  # channels 1 to 3 stand at two places each


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (9, rows(1, 6, 3)),  # in rows of 3 each channel stands once
        (3, rows(1, 4, 3)),
    ],
)
def test_axes_with_channels_at_several_places_are_bound_in_rows_that_hold_each_once(length, expected):
    axis = Extent(np.arange(1, 10), 0)
    found = couplings([fit(10, length, d0=axis)], VALUES, TWICE)
    assert [block.rows.tolist() for block in found] == [expected]


def test_the_reason_names_the_attribute():
    (block,) = couplings([fit(1, 12, d0=DIM), fit(13, 12, d0=DIM)], VALUES, ROOT)
    assert block.reason == "block.dim sizes several axes"


def test_two_lengths_of_one_tensor_are_two_sizes():
    read = np.arange(1, 13).reshape(3, 4)
    fits = [fit(13, 3, d0=Extent(read, 0)), fit(16, 4, d0=Extent(read, 1))]
    tall, wide = (sorted(block.rows.tolist()) for block in couplings(fits, VALUES, ROOT))
    assert tall == sorted([*read.T.tolist(), [13, 14, 15]])
    assert wide == [*read.tolist(), [16, 17, 18, 19]]


def keeping(*labels):
    """A mask over the labels 0 to 49 that keeps these."""
    mask = np.zeros(50, dtype=bool)
    mask[list(labels)] = True
    return mask


TWO_OF_FOUR = keeping(1, 2, 5, 8, 10, 11)  # of each head of four other channels
TWO_HEADS = keeping(1, 2, 3, 4, 9, 10, 11, 12)


@pytest.mark.parametrize(
    ("fits", "keep", "expected"),
    [
        ([HEADS_BY_WIDTH], keeping(*range(50)), {}),
        ([HEADS_BY_WIDTH], TWO_OF_FOUR, {WIDTH: 2}),
        ([HEADS_BY_WIDTH], TWO_HEADS, {HEADS: 2}),
        ([fit(1, 3, 4, d0=HEADS, d1=HEAD_WIDTH)], TWO_OF_FOUR, {DIM: 6}),
        ([fit(1, 3, 4, d0=HEADS, d1=HEAD_WIDTH)], TWO_HEADS, {HEADS: 2, DIM: 8}),
        ([fit(1, 3, 4, d1=HEAD_WIDTH)], TWO_OF_FOUR, {DIM: 6}),  # what is divided by stays
        ([fit(1, 12, d0=INNER)], TWO_HEADS, {HEADS: 2}),  # of two factors the last one stays
        ([HEADS_BY_WIDTH, fit(1, 12, d0=INNER)], TWO_OF_FOUR, {WIDTH: 2}),
        ([fit(1, 12, d0=Computed("*", 3, WIDTH))], TWO_OF_FOUR, {WIDTH: 2}),
        ([fit(1, 5, d0=Computed("+", WIDTH, 1))], keeping(1, 2, 5), {WIDTH: 2}),
        (
            [fit(1, 8, d0=Computed("-", DIM, WIDTH)), fit(9, 4, d0=WIDTH)],
            keeping(1, 2, 9),
            {DIM: 3, WIDTH: 1},
        ),
        ([fit(7, 6, d0=Extent(np.arange(1, 7), 0))], keeping(1, 3, 9, 11), {}),
        (
            [fit(7, 12, d0=Computed("*", WIDTH, Extent(np.arange(1, 4), 0)))],
            keeping(1, 2, 3, *range(7, 13)),
            {WIDTH: 2},
        ),
    ],
)
def test_attributes_follow_what_is_kept(fits, keep, expected):
    assert solve(fits, VALUES, keep) == expected


@pytest.mark.parametrize(
    ("fits", "keep", "message"),
    [
        ([fit(1, 4, d0=WIDTH), fit(5, 4, d0=WIDTH)], keeping(1, 2, 5, 6, 7), "would have to be .*width = "),
        (
            [fit(1, 12, d0=Computed("*", 3, WIDTH))],
            keeping(1, 2, 3, 4),
            "no value of block.width, now 4, gives",
        ),
        (
            [fit(1, 3, 4, d1=HEAD_WIDTH), fit(13, 12, d0=DIM)],
            TWO_OF_FOUR | keeping(13, 14, 15),
            "no value of block.heads",
        ),
        ([fit(7, 6, d0=Extent(np.arange(1, 7), 0))], keeping(1, 3, 9), "to be 1, which an axis of its own"),
        ([fit(1, 4, d0=4)], keeping(1, 2), "to be 2, which an axis of its own does not give"),
        ([HEADS_BY_WIDTH], keeping(1, 2, 3, 4, 5), "lines of different lengths"),
        ([fit(1, 4, d0=WIDTH)], keeping(20), "keeps no channel of an axis that block.width sizes"),
        (
            [fit(1, 8, d0=Computed("*", WIDTH, 2)), fit(9, 4, d0=WIDTH)],
            keeping(*range(1, 12)),
            "would have to be",
        ),
    ],
    ids=[
        "two values",
        "no multiple",
        "dim and dim // heads",
        "another axis",
        "a number",
        "ragged",
        "nothing kept",
        "an early one holds by chance",
    ],
)
def test_sizes_that_no_value_gives_are_refused(fits, keep, message):
    with pytest.raises(PruningError, match=message):
        solve(fits, VALUES, keep)
