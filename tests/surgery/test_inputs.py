"""Example inputs and outputs are read the same way everywhere."""

from __future__ import annotations

from collections import OrderedDict, UserDict, UserList, deque, namedtuple
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import Inputs, flatten_tensors, map_tensors
from seg_pruning.surgery.trial import trace

Pair = namedtuple("Pair", "left right")


@dataclass(frozen=True)
class Frozen:
    logits: Tensor
    label: str = "polyp"


class Difference(nn.Module):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left - right


A, B = torch.full((2, 3, 4, 4), 5.0), torch.full((2, 3, 4, 4), 2.0)


@pytest.mark.parametrize(
    "example",
    [(A, B), {"right": B, "left": A}, Inputs((A,), {"right": B})],
    ids=["tuple", "dict", "both"],
)
def test_calls_the_model_as_the_form_says(example: Any) -> None:
    inputs = Inputs.of(example)
    torch.testing.assert_close(inputs.call(Difference()), torch.full((2, 3, 4, 4), 3.0))
    assert inputs.batch == 2
    assert inputs.shapes == ((2, 3, 4, 4), (2, 3, 4, 4))


def test_a_tensor_is_the_only_argument() -> None:
    assert Inputs.of(A).call(nn.Identity()) is A


@pytest.mark.parametrize("example", [[A], None, 3, (), {}, (1, "x"), {1: A}], ids=repr)
def test_what_is_no_example_input_is_refused_with_the_legal_forms(example: Any) -> None:
    with pytest.raises(PruningError, match=r"a tuple \(positional arguments\)"):
        Inputs.of(example)


def test_to_changes_floats_only_and_leaves_the_original() -> None:
    index = torch.arange(2)
    moved = Inputs.of({"image": A, "nested": [{"index": index}]}).to(
        dtype=torch.bfloat16, memory_format=torch.channels_last
    )
    image, nested = moved.tensors
    assert image.dtype is torch.bfloat16
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert nested.dtype is torch.int64
    assert A.dtype is torch.float32
    assert A.is_contiguous()


def test_batch_skips_scalars() -> None:
    assert Inputs.of((torch.tensor(7), A)).batch == 2
    assert Inputs.of(torch.tensor(7)).batch == 1


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (A, [A]),
        (None, []),
        ((A, [B, None], 3), [A, B]),
        (OrderedDict(out=B, aux=A), [B, A]),
        (Pair(A, {"x": B}), [A, B]),
        ({"deep": Frozen(A)}, [A]),
        (torch.max(A, 0), list(torch.max(A, 0))),
    ],
    ids=["tensor", "none", "nested", "ordered dict", "named tuple", "dataclass", "return type"],
)
def test_flatten_keeps_the_order_of_the_containers(output: Any, expected: list[Tensor]) -> None:
    found = flatten_tensors(output)
    assert len(found) == len(expected)
    assert all(torch.equal(left, right) for left, right in zip(found, expected, strict=True))


def test_flatten_looks_into_distributions_and_ends_on_cycles() -> None:
    normal = torch.distributions.Normal(A, B)
    assert {id(t) for t in flatten_tensors(normal)} >= {id(normal.loc), id(normal.scale)}
    loop: list[Any] = [A]
    loop.append(loop)
    assert flatten_tensors(loop) == [A]


def test_flatten_refuses_what_reading_would_use_up() -> None:
    with pytest.raises(PruningError, match="generator"):
        flatten_tensors({"out": (tensor for tensor in (A, B))})


def test_map_keeps_the_containers() -> None:
    value = (Pair(A, 1), OrderedDict(x=Frozen(B)), [A, "text"])
    mapped = map_tensors(value, torch.neg)
    assert isinstance(mapped[0], Pair)
    assert isinstance(mapped[1], OrderedDict)
    assert mapped[0].right == 1
    assert mapped[1]["x"].label == "polyp"
    assert mapped[2][1] == "text"
    torch.testing.assert_close(torch.stack(flatten_tensors(mapped)), -torch.stack([A, B, A]))
    assert value[1]["x"].logits is B


class Slots:
    __slots__ = ("__hidden", "logits", "unset")

    def __init__(self, logits: Tensor, hidden: Tensor | None = None) -> None:
        self.logits, self.__hidden = logits, hidden


class MoreSlots(Slots):
    __slots__ = ("aux",)


@dataclass(frozen=True, slots=True)
class FrozenSlots:
    logits: Tensor
    aux: list[Tensor] = field(default_factory=list)


@dataclass
class ModelOutput(OrderedDict[str, Tensor]):
    """As in Hugging Face's library: the same tensors as items and as attributes."""

    logits: Tensor | None = None
    aux: Tensor | None = None

    def __setitem__(self, name: str, value: Tensor) -> None:
        super().__setitem__(name, value)
        object.__setattr__(self, name, value)

    def __post_init__(self) -> None:
        for name, value in list(vars(self).items()):
            if value is not None:
                self[name] = value

    def update(self, *_: object) -> None:
        raise TypeError("cannot be updated")


class Named(list[Tensor]):
    aux: Tensor


def named(items: list[Tensor], aux: Tensor) -> Named:
    made = Named(items)
    made.aux = aux
    return made


def more_slots(logits: Tensor, hidden: Tensor, aux: Tensor) -> MoreSlots:
    made = MoreSlots(logits, hidden)
    made.aux = aux
    return made


C = torch.full((1,), 7.0)
HIDING = {
    "slots": (Slots(A), [A]),
    "hidden and inherited slots": (more_slots(A, B, C), [A, B, C]),
    "frozen dataclass with slots": (FrozenSlots(A, [B]), [A, B]),
    "model output": (ModelOutput(A, B), [A, B]),
    "nested model output": ({"stage": [ModelOutput(A), Frozen(B)]}, [A, B]),
    "dict class": (UserDict(out=A, aux=[B]), [A, B]),
    "list class": (UserList([A, B]), [A, B]),
    "list with attributes": (named([A], B), [A, B]),
    "deque": (deque([A, B]), [A, B]),
    "set": ({"x", A}, [A]),
    "values of a dict": ({"out": A, "aux": B}.values(), [A, B]),
    "partial": (partial(torch.add, A, other=B), [A, B]),
    "closure": ((lambda tensor: lambda: tensor)(A), [A]),
    "method": (more_slots(A, B, C).__init__, [A, B, C]),
    "packed sequence": (nn.utils.rnn.pack_sequence([torch.zeros(2), torch.zeros(1)]), None),
}


@pytest.mark.parametrize("kind", HIDING)
def test_flatten_finds_tensors_wherever_they_hide(kind: str) -> None:
    value, expected = HIDING[kind]
    found = flatten_tensors({"deep": [value]})
    if expected is None:
        expected = [t for t in value if isinstance(t, Tensor)]
    assert sorted(map(id, found)) == sorted(map(id, expected))
    assert [id(t) for t in flatten_tensors({"deep": [value]})] == [id(t) for t in found]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({A, B}, "set holds 2 tensors, which have no order"),
        (np.zeros((2, 3)), r"an array of shape \(2, 3\) that is no tensor"),
        (map(abs, [A]), "map: reading uses it up"),
    ],
)
def test_what_may_hide_an_answer_is_refused_in_outputs_but_not_in_inputs(value: Any, message: str) -> None:
    for output in (value, {"x": [Slots(value)]}):
        with pytest.raises(PruningError, match=message):
            flatten_tensors(output)
    assert Inputs.of((A, {"meta": [1.5, "name"], "other": value})).tensors[0] is A


def test_objects_that_know_each_other_are_read_once() -> None:
    class Node:
        pass

    nodes = [Node() for _ in range(60)]  # as many ways through them as 2 ** 60
    for i, node in enumerate(nodes):
        node.others, node.value = nodes[i:], A if i == 59 else None
    assert [id(t) for t in flatten_tensors(nodes[0])] == [id(A)]
    mapped = map_tensors(nodes[0], torch.neg)
    assert torch.equal(mapped.others[59].value, -A)
    assert mapped.others[0] is mapped
    assert nodes[59].value is A


@pytest.mark.parametrize("kind", ["slots", "frozen dataclass with slots", "model output", "dict class"])
def test_map_replaces_what_flatten_finds(kind: str) -> None:
    value, expected = HIDING[kind]
    before = [t.clone() for t in expected]
    mapped = map_tensors((value,), torch.neg)
    torch.testing.assert_close(flatten_tensors(mapped), [-t for t in before])
    assert type(mapped[0]) is type(value)
    assert [id(t) for t in flatten_tensors(value)] == [id(t) for t in expected]


@pytest.mark.parametrize("wrap", [Slots, FrozenSlots, ModelOutput, lambda t: {t}, lambda t: deque([t])])
def test_an_answer_that_hides_is_pinned(wrap: Any) -> None:
    class Hides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Any:
            features = self.stem(x)
            return {"out": self.head(features), "features": wrap(features)}

    torch.manual_seed(0)
    group = trace(Hides(), torch.randn(1, 3, 4, 4))["stem"]
    assert (group.prunable, group.reason) == (False, "reaches the output")
