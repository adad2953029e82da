"""Groups of traces that are written by hand."""

from dataclasses import replace

import numpy as np
import pytest

from seg_pruning.surgery.entries import Blocks, Mint
from seg_pruning.surgery.grouping import NO_GROUP, Policy, group_units
from seg_pruning.surgery.labels import along
from seg_pruning.surgery.scales import Scales
from seg_pruning.surgery.trace import Trace


def hand_made(sizes, *, ties=(), pins=(), blocks=(), idle=()):
    """A trace of vectors `t0`, `t1`, ... of these sizes, labelled from 1 on."""
    starts = np.cumsum([1, *sizes])
    mints = tuple(
        Mint(f"t{i}", (0,), along(np.arange(start, start + size), 0, 1))
        for i, (start, size) in enumerate(zip(starts, sizes, strict=False))
    )
    names = [m.tensor for m in mints]
    return Trace(
        shapes={name: (size,) for name, size in zip(names, sizes, strict=True)},
        parameters=tuple(names),
        ran=frozenset(names) - set(idle),
        training_known=True,
        count=int(starts[-1]),
        mints=mints,
        roles={},
        ties=tuple((np.array(a), np.array(b)) for a, b in ties),
        pins=tuple((np.array(labels), reason) for labels, reason in pins),
        blocks=tuple(Blocks(np.array(rows), f"block {i}") for i, rows in enumerate(blocks)),
        fits=(),
        sizes={},
        work=(),
        sites={},
        scales=Scales(),
        buffers=(),
        ops=(),
    )


def groups(trace, policy=None):
    """For each group the roots in it, in order."""
    found = group_units(trace, policy or Policy())
    return [
        [int(r) for r in np.flatnonzero((found.group == g) & (found.root == np.arange(trace.count)))]
        for g in range(len(found.sizes))
    ], found


def test_ties_make_units_and_units_of_the_same_places_make_groups():
    # t0 (1-4) and t1 (5-8) are one stream; t2 (9-10) is tied to the first half of it alone.
    trace = hand_made([4, 4, 2], ties=[([1, 2, 3, 4], [5, 6, 7, 8]), ([9, 10], [5, 6])])
    roots, found = groups(trace)
    assert roots == [[1, 2], [3, 4]]
    assert found.root.tolist() == [0, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    assert found.index[[1, 2, 3, 4]].tolist() == [0, 1, 0, 1]
    assert found.sizes == (2, 2)
    assert found.reasons == ("", "")
    assert [rows.tolist() for rows in found.rows] == [[[0, 1]], [[0, 1]]]


def test_pins_take_a_group_apart_and_keep_the_first_reason():
    trace = hand_made([4, 2], pins=[([1, 2], "first"), ([2, 5], "second")], idle=["t1"])
    roots, found = groups(trace)
    assert roots == [[1, 2], [3, 4], [5], [6]]
    assert found.reasons == ("first", "", "second", "never runs")
    assert found.group[0] == NO_GROUP


def test_what_is_tied_to_a_fixed_index_is_pinned():
    _, found = groups(hand_made([2], ties=[([1], [0])]))
    # unit 0 is the fixed one; it holds label 1
    assert sorted(zip(found.sizes, found.reasons, strict=True)) == [
        (1, ""),
        (1, "meets an index that never leaves"),
    ]


def test_blocks_merge_groups_and_stand_as_rows():
    trace = hand_made([3, 3, 2], blocks=[[[1, 2, 3], [4, 5, 6]]])
    roots, found = groups(trace)
    assert roots == [[1, 2, 3, 4, 5, 6], [7, 8]]
    assert found.rows[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found.blocks == ((0,), ())
    tied, found = groups(trace, Policy(tied_blocks=frozenset({0})))
    assert tied == [[1, 2, 3], [7, 8]]
    assert found.root[[4, 5, 6]].tolist() == [1, 2, 3]
    assert found.blocks == ((), ())


def test_of_nested_blocks_the_finer_rows_bind():
    halves, quarters = [[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 2], [3, 4], [5, 6], [7, 8]]
    for blocks in ([halves, quarters], [quarters, halves]):
        _, found = groups(hand_made([8], blocks=blocks))
        assert found.rows[0].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
        assert found.blocks == ((0, 1),)
        assert found.reasons == ("",)


@pytest.mark.parametrize(
    ("size", "blocks", "reason"),
    [
        (4, [[[1, 2], [3, 4]], [[1, 3], [2, 4]]], "other blocks of it do not fit these"),
        (4, [[[1, 2], [3, 4]], [[1, 3]], [[2, 3], [1, 4]]], "other blocks of it do not fit these"),
        (5, [[[1, 2, 3], [3, 4, 5]]], "cannot shrink alike"),
        (3, [[[1, 2], [2, 3]]], "cannot shrink alike"),
        (4, [[[1, 1], [2, 3]]], "cannot shrink alike"),
        (4, [[[1], [2], [3], [4]]], "cannot shrink alike"),
    ],
    ids=[
        "crossing",
        "crossing and one row",
        "shared unit, longer",
        "shared unit",
        "doubled unit",
        "one column",
    ],
)
def test_blocks_that_cannot_shrink_pin_what_they_hold(size, blocks, reason):
    trace = hand_made([size], blocks=blocks)
    _, found = groups(trace)
    held = np.unique(np.concatenate([np.reshape(rows, -1) for rows in blocks]))
    assert all(reason in found.reasons[found.group[label]] for label in held)
    assert all(found.reasons[found.group[i]] == "" for i in range(1, size + 1) if i not in held)


@pytest.mark.parametrize(
    ("size", "blocks", "expected"),
    [
        (6, [[[1, 2], [3, 4]], [[3, 4], [5, 6]]], [[1, 2], [3, 4], [5, 6]]),
        (8, [[[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 3], [2, 4]]], [[1, 3], [2, 4], [5, 6], [7, 8]]),
        (10, [[[1, 2, 3, 4, 5, 6], [1, 2, 7, 8, 9, 10]], [[1, 2], [3, 4]]], None),
        (10, [[[1, 2, 3, 4], [7, 8, 9, 10]], [[1, 2], [5, 6]]], [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]),
        (10, [[[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 2, 3, 4, 5, 6]]], [[1, 2, 3, 4], [5, 6, 7, 8], [9], [10]]),
        (10, [[[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 2, 3, 4, 5, 6], [1, 2, 3, 7, 9, 10]]], None),
        (9, [np.arange(1, 10).reshape(3, 1, 3)], [[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
    ],
    ids=["chained", "a half in quarters", "a unit in both", "overlapping", "one row", "no fit", "three dims"],
)
def test_blocks_share_the_rows_that_all_of_them_are_made_of(size, blocks, expected):
    _, found = groups(hand_made([size], blocks=blocks))
    if expected is None:
        assert all(found.reasons)
        return
    rows = []
    for g, held in enumerate(found.rows):
        labels = np.flatnonzero((found.group == g) & (found.root == np.arange(size + 1)))
        rows += labels[held].tolist() if len(held) > 1 else labels[held].reshape(-1, 1).tolist()
    assert set(found.reasons) == {""}
    assert sorted(map(sorted, rows)) == expected


@pytest.mark.parametrize(
    ("block", "ties", "rows", "free"),
    [
        ([[1, 2, 3], [3, 2, 1]], [], [[1, 2, 3]], {1, 2, 3, 4, 5, 6}),  # one row in another order
        ([[1, 2], [3, 4], [2, 1]], [], [[1, 2], [3, 4]], {1, 2, 3, 4, 5, 6}),
        ([[1, 1, 2, 3], [4, 4, 5, 6]], [], [[2, 3], [5, 6]], {2, 3, 5, 6}),  # of 1 two would leave at once
        ([[1, 2, 3], [4, 5, 6]], [([1], [4])], [[1, 2, 3]], set()),
    ],
)
def test_each_row_counts_once_and_what_stands_twice_in_a_row_stays(block, ties, rows, free):
    _, found = groups(hand_made([6], blocks=[block], ties=ties))
    assert {label for label in range(1, 7) if not found.reasons[found.group[found.root[label]]]} == free
    if len(rows) > 1:
        group = found.group[rows[0][0]]
        index = found.index[np.array(rows)]
        assert sorted(map(sorted, found.rows[group].tolist())) == sorted(map(sorted, index.tolist()))
        assert {int(g) for g in found.group[np.array(rows)].reshape(-1)} == {int(group)}
    assert all(
        "some of which leave together" in reason or "cannot shrink alike" in reason
        for reason in found.reasons
        if reason
    )


@pytest.mark.parametrize(("stay", "reason"), [(True, "block, and they cannot shrink alike"), (False, "")])
def test_a_line_that_is_one_unit_leaves_only_where_lines_may(stay, reason):
    trace = hand_made([6], ties=[([1, 1, 4, 4], [2, 3, 5, 6])])
    trace = replace(trace, blocks=(Blocks(np.array([[1, 2, 3], [4, 5, 6]]), "block", stay),))
    roots, found = groups(trace)
    assert (roots, found.reasons) == ([[1, 4]], (reason,))
    assert found.rows[0].tolist() == [[0, 1]]


def test_a_pin_spreads_through_blocks_with_its_reason():
    trace = hand_made([2, 2, 2], pins=[([1], "image")], blocks=[[[5, 6], [3, 4]], [[3, 4], [1, 2]]])
    _, found = groups(trace)
    reasons = [found.reasons[found.group[label]] for label in (1, 2, 3, 5)]
    assert reasons[0] == "image"
    assert reasons[1] == reasons[2] == "block 1, with channels that never leave (image)"
    assert reasons[3].startswith("block 0, with channels that never leave (block 1")


def test_a_block_whose_rows_are_tied_binds_nothing():
    trace = hand_made([3, 3], ties=[([1, 2, 3], [6, 5, 4])], blocks=[[[1, 2, 3], [4, 5, 6]]])
    _, found = groups(trace)
    assert (found.sizes, found.blocks, found.reasons) == ((3,), ((),), ("",))


def test_pins_of_the_trials_pin():
    trace = hand_made([2, 2])
    _, found = groups(trace, Policy(pins=((np.array([3, 4]), "tried"),)))
    assert found.reasons == ("", "tried")


def test_groups_do_not_depend_on_the_order_of_ties_and_blocks():
    ties = [([1, 2, 3, 4], [9, 10, 11, 12]), ([5, 6], [13, 14]), ([7], [15])]
    blocks = [[[1, 2], [3, 4]], [[5], [6]], [[9, 10], [13, 14]]]
    trace = hand_made([4, 4, 4, 3], ties=ties, blocks=blocks)
    first, found = groups(trace)
    turned = replace(trace, ties=tuple((b[::-1], a[::-1]) for a, b in trace.ties[::-1]))
    again, other = groups(turned)
    assert first == again
    assert found.reasons == other.reasons
    assert [r.tolist() for r in found.rows] == [r.tolist() for r in other.rows]
    assert [min(roots) for roots in first] == sorted(min(roots) for roots in first)
