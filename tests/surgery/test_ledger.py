"""What the book makes of tensors that meet: cases worked out by hand."""

import numpy as np
import pytest
import torch

from seg_pruning.surgery.labels import FIXED, along
from seg_pruning.surgery.ledger import Call, Ledger, with_fixed
from seg_pruning.surgery.sizes import Attribute, Size

C = along([1, 2, 3], 1, 4)  # a tensor (N, 3, H, W) with its channels labelled
D = along([4, 5, 6], 1, 4)
V = along([7, 8, 9], 0, 3)  # the same channels of a tensor without a batch dim
JOINT = np.arange(10, 16).reshape(1, 3, 2, 1)
OTHER = np.arange(20, 26).reshape(1, 3, 2, 1)
WIDE, GATE, SPATIAL = (2, 3, 2, 4), (2, 1, 2, 4), (1, 3, 1, 1)


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
        ([((C,), WIDE), ((), WIDE)], set(), [1, 2, 3], [(1,)]),
        ([((), (3, 1, 1)), ((C,), WIDE)], set(), [1, 2, 3], [(1,)]),
        ([((JOINT,), WIDE), ((OTHER,), WIDE)], {(i, i + 10) for i in range(10, 16)}, [], [(1, 2)]),
        ([((JOINT,), WIDE), ((C,), WIDE)], set(), [1, 2, 3, *range(10, 16)], [(1, 2), (1,)]),
        ([((JOINT,), WIDE), ((C,), SPATIAL)], set(), [1, 2, 3, *range(10, 16)], [(1, 2), (1,)]),
        ([((JOINT,), WIDE), ((), GATE)], set(), list(range(10, 16)), [(1, 2)]),
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


def test_a_demand_is_made_by_the_attributes_of_that_value_at_that_place():
    heads, width = Size(4, Attribute("a", "heads")), Size(4, Attribute("a", "width"))
    call = Call(torch.ops.aten.view.default, {}, (), (), [heads, 4, Size(8, Attribute("a", "n")), width])
    ledger, labels = Ledger(), np.arange(4)
    assert ledger.demand(call, 4, labels)
    assert ledger.demand(call, 4, labels, at=slice(2, None))
    assert not ledger.demand(call, 4, labels, at=slice(1, 3))
    assert not ledger.demand(call, 5, labels)
    assert [str(d.attribute) for d in ledger.demands] == ["a.heads", "a.width", "a.width"]


def test_one_row_binds_nothing():
    ledger = Ledger()
    ledger.equal_rows(np.array([[1, 2]]), "halves")
    ledger.equal_rows(np.array([[1, 2], [3, 4]]), "halves")
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
