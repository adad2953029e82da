"""The register of other people's networks: each file under `networks/` adds its own."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Case:
    """A network as a stranger wrote it.

    Attributes:
        name: of its class.
        build: makes it.
        example: what it is called with.
        other: another legal call: another batch or size; None where it takes no other.
        pinned: the layers whose channels stay although they do not reach the output.
        train: whether it answers something else in train mode, which is compared too.
    """

    name: str
    build: Callable[[], nn.Module]
    example: Callable[[], object]
    other: Callable[[], object] | None
    pinned: tuple[str, ...]
    train: bool


CASES: dict[str, Case] = {}


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def case(*shape, pinned=(), other=None, train=False, example=None):
    """Registers a class of networks that is built without arguments.

    Args:
        shape: of its only input.
        pinned: see `Case`.
        other: another shape that it takes, or a function that makes another call.
        train: see `Case`.
        example: makes what it is called with, where that is not one tensor.
    """

    def register(build):
        first = example or (lambda: noise(*shape))
        second = (lambda: noise(*other, seed=2)) if isinstance(other, tuple) else other
        CASES[build.__name__] = Case(build.__name__, build, first, second, tuple(pinned), train)
        return build

    return register


def conv(cin, cout, k=3, stride=1, **more):
    return nn.Sequential(
        nn.Conv2d(cin, cout, k, stride, k // 2, bias=False, **more),
        nn.BatchNorm2d(cout),
        nn.ReLU(inplace=True),
    )
