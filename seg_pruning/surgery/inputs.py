"""What a network is called with and what it answers: example inputs and outputs, read the same everywhere."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from seg_pruning.surgery.errors import PruningError

ExampleInputs: TypeAlias = Tensor | tuple[Any, ...] | dict[str, Any]
"""A tensor (the only argument), a tuple (positional arguments) or a dict (keyword arguments)."""

T = TypeVar("T")
_OUTPUTS = "Let forward take and return tensors, tuples, lists, dicts or dataclasses of them."
_OPAQUE = (
    *(str, bytes, bytearray, range, int, float, complex, type(None), type, ModuleType, nn.Module),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Generator),
)
"""What holds no tensor, or whose tensors are not handed over with it."""

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
        return list(_walk((self.args, self.kwargs), frozenset(), {}, strict=False))

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

    Tuples, lists, mappings, other collections and dataclasses are read in their own order. Of any other
    Python object (a distribution, a result class), and of a collection that has some, the instance
    attributes are read, slots included. Numbers, strings and `None` hold nothing.

    Raises:
        PruningError: something is in it in which tensors could hide: an iterator, which reading would use up;
            a set of several tensors, which has no order; an array that is no tensor.

    Example:
        >>> [t.item() for t in flatten_tensors({"out": torch.tensor(1), "aux": (torch.tensor(2), None)})]
        [1, 2]
    """
    return list(_walk(output, frozenset(), {}, strict=True))


def map_tensors(value: T, function: Callable[[Tensor], Tensor]) -> T:
    """A copy of `value` with the tensors in its tuples, lists, mappings and dataclasses replaced.

    Other objects that hold tensors, which `flatten_tensors` finds, are copied with their attributes replaced.
    """
    return cast(T, _map(value, function, {}))


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


def _map(value: object, function: Callable[[Tensor], Tensor], done: dict[int, object]) -> object:
    """`map_tensors` without the promise that the type stays; `done` holds the copies of objects so far."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, (tuple, list)):
        items = [_map(item, function, done) for item in value]
        make = getattr(type(value), "_make", type(value))  # a named tuple itself wants the items singly
        return make(items)
    if isinstance(value, dict):
        clone = copy.copy(value)
        for key, item in value.items():
            clone[key] = _map(item, function, done)
        return clone
    if isinstance(value, _OPAQUE):
        return value
    return done[id(value)] if id(value) in done else _map_attributes(value, function, done)


def _map_attributes(value: object, function: Callable[[Tensor], Tensor], done: dict[int, object]) -> object:
    """`value`, or where it holds tensors a copy with them replaced."""
    held = _attributes(value)
    if not any(True for _ in _walk(list(held.values()), frozenset(), {id(value): value}, strict=False)):
        return value
    twin = done[id(value)] = copy.copy(value)
    for name, item in held.items():
        # object.__setattr__ reaches the fields of a frozen dataclass too; the copy is nobody else's yet
        object.__setattr__(twin, name, _map(item, function, done))
    return twin


def _walk(value: object, above: frozenset[int], seen: dict[int, object], *, strict: bool) -> Iterator[Tensor]:
    """The tensors below `value`.

    Args:
        value: anything.
        above: the collections on the way to it, so that a cycle ends.
        seen: objects with attributes that were read before: each is read once, however many know it.
        strict: whether to raise where tensors cannot be looked for. Arguments of a network may hold such
            things, its answers may not.
    """
    if isinstance(value, Tensor):
        yield value
    elif not isinstance(value, _OPAQUE) and id(value) not in above and id(value) not in seen:
        if type(value) in (tuple, list, dict):
            yield from _walk_items(value, above, seen, strict=strict)
            return
        if strict:
            _check_readable(value)
        held = _attributes(value)
        if held:
            seen[id(value)] = value
        found = list(_walk_items(value, above, seen, strict=strict))
        if strict and isinstance(value, AbstractSet) and len(found) > 1:
            raise PruningError(
                f"A {type(value).__name__} holds {len(found)} tensors, which have no order in it. {_OUTPUTS}"
            )
        yield from found
        known = {id(tensor) for tensor in found}
        for attribute in held.values():
            yield from (t for t in _walk(attribute, above, seen, strict=strict) if id(t) not in known)


def _walk_items(
    value: object, above: frozenset[int], seen: dict[int, object], *, strict: bool
) -> Iterator[Tensor]:
    inside = above | {id(value)}
    for item in _items(value):
        yield from _walk(item, inside, seen, strict=strict)


def _check_readable(value: object) -> None:
    if isinstance(value, Iterator):
        raise PruningError(
            f"Tensors cannot be looked for in a {type(value).__name__}: reading uses it up. {_OUTPUTS}"
        )
    if isinstance(value, np.ndarray) and value.dtype.kind not in "USMm":
        raise PruningError(
            f"The network gives an array of shape {value.shape} that is no tensor: what it depends on is not "
            f"known. {_OUTPUTS}"
        )


def _items(value: object) -> Iterable[object]:
    """What `value` holds as a collection."""
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, partial):
        return (value.func, value.args, value.keywords)
    if isinstance(value, FunctionType):
        return [cell.cell_contents for cell in value.__closure__ or ()]
    if isinstance(value, MethodType):
        return (value.__self__,)
    return value if isinstance(value, Collection) and not isinstance(value, np.ndarray) else ()


def _attributes(value: object) -> dict[str, object]:
    """What `value` holds by name: instance attributes and slots; empty for plain values."""
    found: dict[str, object] = {}
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            hidden = name.startswith("__") and not name.endswith("__")
            full = f"_{kind.__name__.lstrip('_')}{name}" if hidden else name
            if full not in ("__dict__", "__weakref__") and (item := getattr(value, full, None)) is not None:
                found[full] = item
    return found | getattr(value, "__dict__", {})
