"""Label arrays against numpy on whole tensors, brute force and a naive union-find."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_pruning.surgery.labels import (
    along,
    collapse,
    components,
    kept_extents,
    lift,
    reshape,
    segments,
    span,
    touching,
    vector,
)

_FACTORS = st.lists(st.sampled_from([1, 2, 2, 3, 5]), min_size=1, max_size=5)


@st.composite
def factorisations(draw):
    """Two shapes of the same number of elements: the same primes in another order and in other runs."""
    primes = draw(_FACTORS)

    def shape(order):
        cuts = sorted(draw(st.lists(st.integers(0, len(order)), max_size=4)))
        return tuple(math.prod(order[a:b]) for a, b in itertools.pairwise([0, *cuts, len(order)]))

    order = primes if draw(st.booleans()) else draw(st.permutations(primes))
    return shape(primes), shape(order)


@st.composite
def labelled(draw):
    """A label array of a tensor of some shape, with labels that may repeat, and a shape to view it as."""
    old, new = draw(factorisations())
    sizes = [size if draw(st.booleans()) else 1 for size in old]
    labels = draw(st.lists(st.integers(1, 4), min_size=math.prod(sizes), max_size=math.prod(sizes)))
    distinct = np.arange(math.prod(sizes)) * 5 if draw(st.booleans()) else 0
    return (np.array(labels, dtype=np.int64) + distinct).reshape(sizes), old, new


@given(labelled())
def test_reshaped_labels_are_those_of_the_reshaped_tensor(case):
    array, old, new = case
    result = reshape(array, old, new)
    whole = np.broadcast_to(array, old).reshape(new)
    np.testing.assert_array_equal(np.broadcast_to(result, new), whole)
    changing = [d for d in range(len(new)) if (whole != whole.take([0], axis=d)).any()]
    assert list(span(result)) == changing  # no wider than it must be


@given(factorisations())
def test_segments_are_the_finest_runs_of_equal_volume(shapes):
    old, new = shapes
    runs = segments(old, new)
    assert [d for before, _ in runs for d in before] == list(range(len(old)))
    assert [d for _, after in runs for d in after] == list(range(len(new)))
    for before, after in runs:
        assert math.prod(old[d] for d in before) == math.prod(new[d] for d in after)
    # brute force: a boundary is wherever the products of the leading dims agree
    edges = set(itertools.accumulate(old, int.__mul__)) & set(itertools.accumulate(new, int.__mul__))
    volumes = [math.prod(old[d] for d in before) for before, _ in runs]
    assert set(itertools.accumulate(volumes, int.__mul__)) - {1} == edges - {1}


@given(st.data())
def test_components_are_those_of_a_union_find(data):
    count = data.draw(st.integers(1, 30))
    label = st.integers(0, count - 1)
    ties = data.draw(st.lists(st.lists(st.tuples(label, label), max_size=6), max_size=6))
    parent = list(range(count))

    def find(i):
        return i if parent[i] == i else find(parent[i])

    for a, b in itertools.chain.from_iterable(ties):
        low, high = sorted((find(a), find(b)))
        parent[high] = low
    pairs = [tuple(np.array(tie, dtype=np.int64).reshape(-1, 2).T) for tie in ties]
    assert components(count, pairs).tolist() == [find(i) for i in range(count)]


@pytest.mark.parametrize("order", [1, -1], ids=["ascending", "descending"])
def test_a_long_chain_is_one_component(order):
    chain = np.arange(5000)[::order]
    assert not components(5000, [(chain[:-1], chain[1:])]).any()


@pytest.mark.parametrize(
    ("labels", "dim", "expected"),
    [
        ((along([3, 4], 1, 4),), 1, [3, 4]),
        ((along([3, 4], -1, 3),), 2, [3, 4]),
        ((along([3, 4], 0, 2), along([5, 6], 1, 2)), 1, [5, 6]),
        ((along([3, 4], 0, 2),), 1, None),
        ((np.array([[1, 2], [3, 4]]),), 1, None),
        ((), 0, None),
    ],
)
def test_a_vector_is_an_array_that_spans_its_dim_alone(labels, dim, expected):
    found = vector(labels, dim)
    assert (None if found is None else found.tolist()) == expected


def test_arrays_that_touch_dims_and_arrays_lifted_by_broadcasting():
    row, column, joint = along([1, 2], 0, 3), along([3, 4, 5], 2, 3), np.arange(6).reshape(2, 1, 3)
    labels = (row, column, joint)
    assert [id(a) for a in touching(labels, [0])] == [id(row), id(joint)]
    assert touching(labels, [1]) == ()
    assert [a.shape for a in lift(labels, 5)] == [(1, 1, 2, 1, 1), (1, 1, 1, 1, 3), (1, 1, 2, 1, 3)]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        ([[1, 1], [2, 2]], [[1], [2]]),
        ([[1, 2], [1, 2]], [[1, 2]]),
        ([[7, 7], [7, 7]], [[7]]),
        ([[1, 2], [2, 1]], [[1, 2], [2, 1]]),
    ],
)
def test_collapse_drops_the_dims_along_which_nothing_changes(array, expected):
    assert collapse(np.array(array)).tolist() == expected


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ([[1, 0, 1], [0, 1, 1]], ((2, 2), (1,))),  # each row its own columns
        ([[1, 0, 1], [0, 0, 0], [0, 1, 1]], ((2, 2), (1,))),
        ([[1, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 0]], ((3, 2), (1,))),
        ([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]], ((2, 3), (0,))),  # each column its own rows
        ([[1, 0, 1], [0, 0, 0]], ((1, 2), ())),
        ([[1, 1], [1, 1]], ((2, 2), ())),
        ([[0, 0], [0, 0]], ((0, 0), ())),
        ([1, 0, 1], ((2,), ())),
        ([[1, 1], [1, 0]], None),
        ([[1, 1, 1], [1, 0, 0], [0, 1, 0]], None),
    ],
)
def test_what_a_mask_keeps_is_a_rectangle_or_nothing(mask, expected):
    assert kept_extents(np.array(mask, dtype=bool)) == expected
