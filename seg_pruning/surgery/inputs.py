"""What a network is called with and what it answers: example inputs and outputs, read the same everywhere."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, nn

from seg_pruning.surgery.errors import PruningError

ExampleInputs: TypeAlias = Tensor | tuple[Any, ...] | dict[str, Any]
"""A tensor (the only argument), a tuple (positional arguments) or a dict (keyword arguments)."""

T = TypeVar("T")
_LEGAL = "a tensor (the only argument), a tuple (positional arguments) or a dict (keyword arguments)"


@dataclass(frozen=True)
class Inputs:
    """The arguments of one call of a network.

    A network that takes one dict or one list as its only argument has a tuple around it: `({"image": x},)`.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @classmethod
    def of(cls, example: ExampleInputs | Inputs) -> Inputs:
        """Reads an example input; the tensors in it are shared, not copied.

        Raises:
            PruningError: `example` is none of the three forms, or there is no tensor in it.

        Example:
            >>> Inputs.of({"image": torch.zeros(4, 3, 8, 8)}).batch
            4
        """
        inputs = example if isinstance(example, Inputs) else _read(example)
        if not inputs.tensors:
            raise PruningError(
                f"Expected example inputs with a tensor in them, but got {example!r:.200}. Give {_LEGAL}."
            )
        return inputs

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, positional ones first, each in the order of its container."""
        return flatten_tensors((self.args, self.kwargs))

    @property
    def batch(self) -> int:
        """Length of the first dim of the first tensor that has dims; 1 where none has."""
        return next((tensor.shape[0] for tensor in self.tensors if tensor.dim()), 1)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each tensor of `tensors`."""
        return tuple(tuple(tensor.shape) for tensor in self.tensors)

    def map(self, function: Callable[[Tensor], Tensor]) -> Inputs:
        """The same call with every tensor replaced by `function(tensor)`."""
        return Inputs(map_tensors(self.args, function), map_tensors(dict(self.kwargs), function))

    def to(
        self,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        memory_format: torch.memory_format | None = None,
    ) -> Inputs:
        """The same call elsewhere; `dtype` for floating tensors only, `memory_format` for 4-D ones only."""

        def move(tensor: Tensor) -> Tensor:
            moved = tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
            if memory_format is None or moved.dim() != 4:
                return moved
            return moved.contiguous(memory_format=memory_format)

        return self.map(move)

    def call(self, model: nn.Module) -> object:
        """What `model` answers to these arguments."""
        return model(*self.args, **self.kwargs)


def flatten_tensors(output: object) -> list[Tensor]:
    """All tensors in an output, in a fixed order.

    Tuples, lists, mappings and dataclasses are read in their own order. Of any other Python object (a
    distribution, a result class) the instance attributes are read. Numbers, strings and `None` hold nothing.

    Raises:
        PruningError: An iterator is in it: tensors could hide there, and reading would use it up.

    Example:
        >>> [t.item() for t in flatten_tensors({"out": torch.tensor(1), "aux": (torch.tensor(2), None)})]
        [1, 2]
    """
    return list(_walk(output, frozenset()))


def map_tensors(value: T, function: Callable[[Tensor], Tensor]) -> T:
    """A copy of `value` with the tensors in its tuples, lists, mappings and dataclasses replaced."""
    return cast(T, _map(value, function))


def _read(example: object) -> Inputs:
    """`example` by its form."""
    if isinstance(example, Tensor):
        return Inputs((example,), {})
    if isinstance(example, tuple):
        return Inputs(example, {})
    if isinstance(example, dict) and all(isinstance(key, str) for key in example):
        return Inputs((), example)
    kind = type(example).__name__
    raise PruningError(f"Expected example inputs to be {_LEGAL}, but got {example!r:.200} of type {kind}.")


def _map(value: object, function: Callable[[Tensor], Tensor]) -> object:
    """`map_tensors` without the promise that the type stays."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, (tuple, list)):
        items = [_map(item, function) for item in value]
        make = getattr(type(value), "_make", type(value))  # a named tuple itself wants the items singly
        return make(items)
    if isinstance(value, MutableMapping):
        clone = copy.copy(value)
        clone.update({key: _map(item, function) for key, item in value.items()})
        return clone
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        twin = copy.copy(value)
        for field in dataclasses.fields(value):
            # object.__setattr__ reaches the fields of a frozen dataclass too; the copy is nobody else's yet
            object.__setattr__(twin, field.name, _map(getattr(value, field.name), function))
        return twin
    return value


def _walk(value: object, above: frozenset[int]) -> Iterator[Tensor]:
    """The tensors below `value`; `above` holds the objects on the way to it, so that a cycle ends."""
    if isinstance(value, Tensor):
        yield value
    elif id(value) not in above:
        yield from chain.from_iterable(_walk(child, above | {id(value)}) for child in _children(value))


def _children(value: object) -> Iterable[object]:
    """What is directly inside `value`."""
    if isinstance(value, (tuple, list)):
        return value
    if isinstance(value, Mapping):
        return value.values()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, Iterator):
        raise PruningError(
            f"Tensors cannot be looked for in a {type(value).__name__}: reading uses it up. "
            "Let forward take and return tensors, tuples, lists, dicts or dataclasses of them."
        )
    if isinstance(value, (type, nn.Module)):
        return ()
    attributes: dict[str, object] = getattr(value, "__dict__", {})
    return attributes.values()
