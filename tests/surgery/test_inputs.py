"""Example inputs and outputs are read the same way everywhere."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import Inputs, flatten_tensors, map_tensors

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
