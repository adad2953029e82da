"""What the book makes of tensors that meet: cases worked out by hand."""

import numpy as np
import pytest
import torch

from seg_pruning.surgery.entries import Call
from seg_pruning.surgery.expressions import Attribute
from seg_pruning.surgery.labels import FIXED, along, with_fixed
from seg_pruning.surgery.ledger import Ledger
from seg_pruning.surgery.sizes import Size

C = along([1, 2, 3], 1, 4)  # a tensor (N, 3, H, W) with its channels labelled
D = along([4, 5, 6], 1, 4)
V = along([7, 8, 9], 0, 3)  # the same channels of a tensor without a batch dim
JOINT = np.arange(10, 16).reshape(1, 3, 2, 1)
OTHER = np.arange(20, 26).reshape(1, 3, 2, 1)
WIDE, GATE, SPATIAL = (2, 3, 2, 4), (2, 1, 2, 4), (1, 3, 1, 1)
ROWS_AS_C = {(1, 10), (1, 11), (2, 12), (2, 13), (3, 14), (3, 15)}
COLUMNS = {(i, 20 + i % 2) for i in range(10, 16)}


def pairs(ledger):
    """All ties that say something, smallest label first."""
    listed = [(int(x), int(y)) for a, b in ledger.ties for x, y in zip(a, b, strict=True)]
    return {(min(p), max(p)) for p in listed if p[0] != p[1]}


@pytest.mark.parametrize(
    ("operands", "ties", "pinned", "spans"),
    [
        ([((C,), WIDE), ((D,), WIDE)], {(1, 4), (2, 5), (3, 6)}, [], [(1,)]),
        ([((C,), WIDE), ((D,), SPATIAL)], {(1, 4), (2, 5), (3, 6)}, [], [(1,)]),
        ([((C,), WIDE), ((V,), (3, 1, 1))], {(1, 7), (2, 8), (3, 9)}, [], [(1,)]),
        ([((C,), WIDE), ((), GATE)], set(), [], [(1,)]),
        ([((C,), WIDE), ((), ())], set(), [], [(1,)]),
        ([((C,), WIDE), ((), WIDE)], set(), [1, 2, 3], []),
        ([((), (3, 1, 1)), ((C,), WIDE)], set(), [1, 2, 3], []),
        ([((JOINT,), WIDE), ((OTHER,), WIDE)], {(i, i + 10) for i in range(10, 16)}, [], [(1, 2)]),
        ([((JOINT,), WIDE), ((C,), WIDE)], ROWS_AS_C, [], [(1,)]),
        ([((JOINT,), WIDE), ((C,), SPATIAL)], ROWS_AS_C, [], [(1,)]),
        ([((JOINT,), WIDE), ((), GATE)], set(), [], [(1, 2)]),
        ([((JOINT,), WIDE), ((), WIDE)], set(), list(range(10, 16)), []),
        (
            [((JOINT,), WIDE), ((C, along([20, 21], 2, 4)), WIDE)],
            ROWS_AS_C | COLUMNS,
            [],
            [(1,), (2,)],
        ),
        ([((JOINT,), WIDE), ((), (1, 1, 1, 4))], set(), [], [(1, 2)]),
        ([((C,), WIDE), ((D,), WIDE), ((), GATE)], {(1, 4), (2, 5), (3, 6)}, [], [(1,)]),
    ],
    ids=[
        "same dims",
        "size 1 elsewhere",
        "fewer dims",
        "gate of one channel",
        "scalar",
        "rigid",
        "rigid, fewer dims",
        "joint",
        "joint and vector",
        "joint and broadcast vector",
        "joint and half",
        "joint and rigid",
        "joint and both by themselves",
        "joint and rigid elsewhere",
        "three",
    ],
)
def test_what_merging_ties_and_pins(operands, ties, pinned, spans):
    ledger = Ledger(count=30)
    merged = ledger.merge(operands, 4, "aten.add")
    assert pairs(ledger) == ties
    assert sorted({int(i) for labels, _ in ledger.pins for i in labels}) == pinned
    assert all("fixed in aten.add" in reason for _, reason in ledger.pins)
    assert [tuple(d for d, n in enumerate(array.shape) if n > 1) for array in merged] == spans


def test_a_tie_broadcasts_and_a_tie_with_itself_says_nothing():
    ledger = Ledger()
    ledger.tie(np.array([[1], [2]]), np.array([[3, 4]]))
    ledger.tie(C, C)
    assert pairs(ledger) == {(1, 3), (1, 4), (2, 3), (2, 4)}
    assert len(ledger.ties) == 1


@pytest.mark.parametrize(
    ("a", "b", "ties", "pinned"),
    [
        (np.array([1, 2]), np.array([3, 4]), {(1, 3), (2, 4)}, []),
        (np.array([1, 2]), None, set(), [1, 2]),
        (None, np.array([3, 4]), set(), [3, 4]),
        (None, None, set(), []),
    ],
)
def test_what_meets_a_rigid_dim_is_pinned(a, b, ties, pinned):
    ledger = Ledger()
    ledger.meet(a, b, "why")
    assert pairs(ledger) == ties
    assert [int(i) for labels, _ in ledger.pins for i in labels] == pinned
    assert {reason for _, reason in ledger.pins} <= {"why"}


def test_a_minted_tensor_has_a_label_for_every_index_and_each_label_knows_its_tensor():
    ledger, weight, bias = Ledger(), torch.zeros(4, 1, 3), torch.zeros(2)
    ledger.mint("weight", weight)
    activation = ledger.fresh(5)
    ledger.mint("bias", bias)
    assert [(m.tensor, m.dims) for m in ledger.mints] == [("weight", (0,)), ("weight", (2,)), ("bias", (0,))]
    assert [ledger.vector(weight, d) is None for d in (0, 1, 2, -1)] == [False, True, False, False]
    known = [(m.tensor if (m := ledger.minted(i)) else None) for i in range(ledger.count)]
    assert known == [None] + ["weight"] * 7 + [None] * 5 + ["bias"] * 2
    assert ledger.count == 15
    assert activation.tolist() == [8, 9, 10, 11, 12]
    assert (ledger.named(weight), ledger.named(torch.zeros(4, 1, 3))) == ("weight", None)


def test_joint_dims_are_labelled_together():
    ledger, weight = Ledger(joint={"weight": (0, 1)}), torch.zeros(4, 3, 2)
    ledger.mint("weight", weight)
    # the rows by themselves, then each (row, column), then the last dim
    assert [(m.dims, m.labels.shape) for m in ledger.mints] == [
        ((0,), (4, 1, 1)), ((0, 1), (4, 3, 1)), ((2,), (1, 1, 2)),
    ]  # fmt: skip
    assert len(np.unique(np.concatenate([m.labels.reshape(-1) for m in ledger.mints]))) == 4 + 12 + 2


def test_the_first_use_gives_a_weight_its_role_and_an_activation_has_none():
    ledger, weight = Ledger(), torch.zeros(4, 3)
    ledger.mint("weight", weight)
    ledger.role(ledger.vector(weight, 0), "out")
    ledger.role(ledger.vector(weight, 0), "in")
    ledger.role(ledger.fresh(3), "in")
    ledger.role(None, "in")
    assert ledger.roles == {1: "out"}


def test_a_copy_stands_for_what_was_minted():
    ledger, weight = Ledger(dense={"weight": (8, 3)}), torch.zeros(4, 3)
    ledger.mint("weight", weight)
    copy = weight.clone()
    ledger.adopt(copy, weight)
    assert ledger.named(copy) == "weight"
    assert ledger.labels(copy) is ledger.labels(weight)
    assert ledger.dense_shape(copy) == (8, 3)
    assert ledger.dense_shape(torch.zeros(5)) == (5,)


@pytest.mark.parametrize(
    ("shape", "narrowing", "ties", "left"),
    [
        (GATE, None, set(), (3, 2)),  # open: each column keeps as many rows as every other
        (GATE, 1, set(), (3, 2)),
        (GATE, 2, {(10, 11), (12, 13), (14, 15)}, (3, 1)),  # whole rows leave
        (SPATIAL, None, set(), (3, 2)),
        (SPATIAL, 2, set(), (3, 2)),
        (SPATIAL, 1, {(10, 12), (10, 14), (11, 13), (11, 15)}, (1, 2)),  # whole columns leave
    ],
)
def test_a_joint_array_that_meets_a_fixed_dim_loses_along_the_other_one(shape, narrowing, ties, left):
    ledger = Ledger(count=30)
    if narrowing is not None:
        ledger.narrow(JOINT, [narrowing], "before")
    (array,) = ledger.merge([((JOINT,), WIDE), ((), shape)], 4, "aten.add")
    assert pairs(ledger) == ties
    assert ledger.pins == []
    assert array.shape == (1, *left, 1)
    found = ledger.narrowing(array)
    assert found == (1 if shape == GATE else 2)


def test_the_dim_along_which_channels_leave_is_chosen_once():
    ledger = Ledger(count=40)
    assert ledger.narrowing(C) == 1
    assert ledger.narrowing(JOINT) is None
    assert ledger.narrow(JOINT, [1], "first") == 1
    assert ledger.narrow(JOINT, [1, 2], "second") == 1
    assert ledger.narrowing(JOINT.transpose(0, 2, 1, 3)) == 2
    assert [(b.rows.reshape(-1, 3).tolist(), b.reason) for b in ledger.blocks] == [
        ([[10, 12, 14], [11, 13, 15]], "first")
    ]
    ledger.tie(OTHER, JOINT)  # what is tied leaves along the same dim
    assert ledger.narrow(OTHER, [1, 2], "third") == 1
    assert ledger.narrow(np.arange(30, 36).reshape(1, 3, 2, 1), [1, 2], "fourth") == 2
    padded = np.concatenate([JOINT, np.full((1, 3, 1, 1), FIXED)], axis=2)
    assert ledger.narrowing(padded) == 1


def test_a_weight_whose_dims_are_labelled_together_loses_along_the_last_one():
    ledger, weight = Ledger(joint={"weight": (0, 1)}), torch.zeros(4, 3, 2)
    ledger.mint("weight", weight)
    (joint,) = [array for array in ledger.labels(weight) if array.size == 12]
    assert ledger.narrowing(joint) == 1
    assert ledger.narrowing(joint[:2]) is None  # a part of it may have been cut otherwise


@pytest.mark.parametrize(
    ("labels", "dims", "ties", "pinned", "left"),
    [
        ((C,), [2, 3], set(), [], [(1, 3, 1, 1)]),
        ((C,), [1], set(), [1, 2, 3], []),
        ((JOINT,), [2, 3], {(10, 11), (12, 13), (14, 15)}, [], [(1, 3, 1, 1)]),
        ((JOINT,), [1], {(10, 12), (10, 14), (11, 13), (11, 15)}, [], [(1, 1, 2, 1)]),
        ((JOINT,), [1, 2], set(), list(range(10, 16)), []),
        ((C, JOINT), [2], {(10, 11), (12, 13), (14, 15), (1, 10), (2, 12), (3, 14)}, [], [(1, 3, 1, 1)]),
        ((C, JOINT), [1, 3], {(10, 12), (10, 14), (11, 13), (11, 15)}, [1, 2, 3], [(1, 1, 2, 1)]),
    ],
)
def test_what_is_mixed_leaves_as_a_whole_or_stays(labels, dims, ties, pinned, left):
    ledger = Ledger(count=30)
    result = ledger.unmixed(labels, dims, "mixes")
    assert pairs(ledger) == ties
    assert [(int(i), reason) for held, reason in ledger.pins for i in held] == [(i, "mixes") for i in pinned]
    assert [array.shape for array in result] == left


def test_arrays_of_the_same_dims_are_given_once():
    ledger = Ledger(count=30)
    assert [a is b for a, b in zip(ledger.distinct([C, JOINT, D]), (C, JOINT), strict=True)] == [True, True]
    assert pairs(ledger) == {(1, 4), (2, 5), (3, 6)}


def test_a_size_is_believed_at_its_place_with_its_value_and_from_its_own_pass():
    ledger = Ledger()
    heads, width, n = (
        Size(v, Attribute("a", name), ledger) for v, name in ((4, "heads"), (4, "width"), (8, "n"))
    )
    call = Call(
        torch.ops.aten.view.default, {}, (), (), [heads, 4, n, width, Size(9, n.expression, Ledger())]
    )
    assert ledger.size(call, 4) is heads.expression
    assert ledger.size(call, 4, at=slice(1, None)) is width.expression
    assert ledger.size(call, 4, at=slice(1, 3)) is None
    assert ledger.size(call, 8) is n.expression
    assert ledger.size(call, 5) is None
    assert ledger.size(call, 9) is None


def test_a_fit_is_noted_where_a_size_is_known():
    ledger, labels, size = Ledger(), np.arange(12).reshape(3, 4), Attribute("a", "heads")
    ledger.fit(labels, {0: None, 1: None}, 1)
    ledger.fit(labels, {0: size, 1: None}, 1)
    assert [(f.labels is labels, f.sizes, f.dim) for f in ledger.fits] == [(True, ((0, size),), 1)]


def test_channels_whose_numbers_are_read_are_pinned():
    ledger, numbers, other = Ledger(), torch.zeros(2, dtype=torch.long), torch.zeros(2, dtype=torch.long)
    ledger.number(numbers, np.array([1, 2]))
    ledger.number(numbers, np.array([5]))
    ledger.pin_numbers([other], "aten.add")
    assert ledger.pins == []
    ledger.pin_numbers([other, numbers], "aten.add")
    assert [(held.tolist(), reason) for held, reason in ledger.pins] == [
        ([1, 2], "aten.add reads the number of a channel"),
        ([5], "aten.add reads the number of a channel"),
    ]


def test_where_blocks_are_told_to_stand_none_leaves_as_a_whole():
    ledger = Ledger(standing=frozenset({1}))
    rows = np.arange(1, 7).reshape(2, 3)
    for name in ("first", "second", "third"):
        ledger.ops.append(name)
        ledger.equal_rows(rows, name, stay=False)
    assert [(block.stay, block.op) for block in ledger.blocks] == [(False, 0), (True, 1), (False, 2)]
    assert ledger.stays(rows)
    assert not Ledger().stays(rows)


def test_one_row_binds_nothing_and_what_is_fixed_is_left_out():
    ledger = Ledger(count=10)
    ledger.equal_rows(np.array([[1, 2]]), "halves")
    ledger.equal_rows(np.array([[1, 2, FIXED], [3, 4, FIXED], [FIXED] * 3]), "halves")
    assert [b.rows.tolist() for b in ledger.blocks] == [[[1, 2], [3, 4]]]


@pytest.mark.parametrize(
    ("labels", "dims", "expected"),
    [
        ((C,), (1,), np.array([1, 2, 3]).reshape(1, 3, 1, 1)),
        ((C,), (1, 2), np.broadcast_to(C, (1, 3, 2, 1))),
        ((C,), (2,), np.full((1, 1, 2, 1), FIXED)),
        ((JOINT,), (1,), np.full((1, 3, 1, 1), FIXED)),
        ((C, along([4, 5], 2, 4)), (1, 2), np.full((1, 3, 2, 1), FIXED)),
        ((), (1,), np.full((1, 3, 1, 1), FIXED)),
    ],
)
def test_labels_are_widened_or_fixed(labels, dims, expected):
    np.testing.assert_array_equal(with_fixed(labels, dims, WIDE), expected)
