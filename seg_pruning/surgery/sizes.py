"""Ints that Python reads, followed into the shapes that they decide.

A forward pass reads widths from attributes (`x.view(b, self.heads, self.dim // self.heads)`) and from shapes
(`b, n, c = x.shape`). While a network is traced each such int is a `Size`, which remembers where it was read
and what was computed with it, so that a rule can say which shape adapts by itself, which attribute has to be
rewritten when channels leave, and which axes have to shrink alike.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from seg_pruning.surgery.expressions import COMPUTE, Attribute, Computed, Expression, Extent, Operator, leaves

SizeValue: TypeAlias = int | tuple[int, ...]


def _remembering(operator: Operator, *, reflected: bool = False) -> Any:
    """The method for `size <operator> other`, or `other <operator> size`, whose result remembers both."""

    def method(size: "Size", other: object) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        left, right = (other, size) if reflected else (size, other)
        value = COMPUTE[operator](int(left), int(right))
        return Size(value, Computed(operator, _expression(left), _expression(right)), size.owner)

    return method


class Owner(Protocol):
    """The pass in which sizes are read; another pass must not believe them."""

    def told_equal(self, axis: Extent, told: Expression) -> None:
        """Hears that Python found the length of `axis` equal to `told`, which was read from attributes."""

    def told_float(self, value: int, told: Expression) -> None:
        """Hears that Python made a float of a size of `value`, which came about as `told` says."""


class Size(int):
    """An int that remembers how it came about.

    Attributes:
        expression: what was read and computed.
        owner: the pass in which it was read.
    """

    expression: Expression
    owner: Owner

    def __new__(cls, value: int, expression: Expression, owner: Owner) -> "Size":
        """An int of `value` that came about as `expression` says."""
        size = super().__new__(cls, value)
        size.expression = expression
        size.owner = owner
        return size

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        """A copied or pickled size is a plain int: a forward pass may copy what it reads."""
        return int, (int(self),)

    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        """As of ints; that a width is found equal to an attribute is noted: Python may insist on it."""
        equal = int.__eq__(self, other)
        if equal is True and isinstance(other, Size):
            _note_equal(self, other)
        return equal

    def __ne__(self, other: object) -> bool:
        """The opposite of `==`."""
        equal = self == other
        return equal if equal is NotImplemented else not equal

    __add__ = _remembering("+")
    __radd__ = _remembering("+", reflected=True)
    __sub__ = _remembering("-")
    __rsub__ = _remembering("-", reflected=True)
    __mul__ = _remembering("*")
    __rmul__ = _remembering("*", reflected=True)
    __floordiv__ = _remembering("//")
    __rfloordiv__ = _remembering("//", reflected=True)

    def __float__(self) -> float:
        """That it is taken is noted: a scale may be made of it, which a cut would change."""
        self.owner.told_float(int(self), self.expression)
        return float(int(self))

    def __pow__(self, other: Any, *modulo: Any) -> Any:
        """A root is noted like a float."""
        if isinstance(other, float):
            self.owner.told_float(int(self), self.expression)
        return pow(int(self), other, *modulo)

    def __neg__(self) -> Any:
        """As `0 - self`."""
        return 0 - self


def _note_equal(one: Size, other: Size) -> None:
    for axis, told in ((one.expression, other.expression), (other.expression, one.expression)):
        if isinstance(axis, Extent) and any(isinstance(leaf, Attribute) for leaf in leaves(told)):
            one.owner.told_equal(axis, told)


def _expression(value: int) -> Expression:
    return value.expression if isinstance(value, Size) else int(value)


class Shape(tuple[int, ...]):
    """What `Tensor.shape` gives in a traced pass: sizes instead of ints.

    It cannot be hashed, so that nothing computed from it is kept in a cache beyond the pass.
    """

    __hash__ = None  # type: ignore[assignment]

    def numel(self) -> int:
        """Number of elements, as `torch.Size` has it."""
        total: int = 1
        for size in self:
            total = size * total
        return total

    def __getitem__(self, key: Any) -> Any:
        """An entry, or a part as a shape; a part from which nothing can leave is an ordinary one."""
        part = super().__getitem__(key)
        if not isinstance(key, slice):
            return part
        return Shape(part) if any(isinstance(size, Size) for size in part) else torch.Size(part)


def _tracked(value: object, module: str, name: str, owner: Owner) -> object | None:
    """`value` with its ints replaced by sizes, or None where it holds none that could be a width."""
    if type(value) is int and value > 1:
        return Size(value, Attribute(module, name), owner)
    if type(value) in (tuple, list) and value and all(type(v) is int for v in value):  # type: ignore[attr-defined]
        entries = [Size(v, Attribute(module, name, i), owner) for i, v in enumerate(value)]  # type: ignore[arg-type, var-annotated]
        return tuple(entries) if type(value) is tuple else entries
    return None


def _values(tracked: object) -> dict[Attribute, int]:
    sizes = tracked if isinstance(tracked, tuple | list) else [tracked]
    return {
        s.expression: int(s) for s in sizes if isinstance(s, Size) and isinstance(s.expression, Attribute)
    }


@contextmanager
def tracked_sizes(model: nn.Module, owner: Owner) -> Iterator[Mapping[Attribute, int]]:
    """Within, every int attribute of every module of `model` is a `Size`; afterwards all is as it was.

    Gives the value of each.
    """
    values: dict[Attribute, int] = {}
    originals: list[tuple[dict[str, Any], str, object]] = []
    for path, module in model.named_modules():
        for name, value in list(vars(module).items()):
            size = _tracked(value, path, name, owner)
            if size is not None:
                originals.append((vars(module), name, value))
                vars(module)[name] = size
                values.update(_values(size))
    try:
        yield values
    finally:
        for attributes, name, value in originals:
            attributes[name] = value


def read(model: nn.Module, attribute: Attribute) -> int:
    """The value that `attribute` has now."""
    value = getattr(model.get_submodule(attribute.module), attribute.name)
    return int(value if attribute.index is None else value[attribute.index])


def write_(model: nn.Module, attribute: Attribute, value: int) -> None:
    """Sets `attribute`; an entry of a tuple or list is replaced in a new tuple or list of the same type."""
    module = model.get_submodule(attribute.module)
    if attribute.index is None:
        setattr(module, attribute.name, value)
        return
    entries = getattr(module, attribute.name)
    changed = [*entries[: attribute.index], value, *entries[attribute.index + 1 :]]
    setattr(module, attribute.name, type(entries)(changed))


def _of_convolution(module: _ConvNd, weight: tuple[int, ...], groups: int) -> dict[str, SizeValue]:
    first, second = weight[0], weight[1] * groups
    if isinstance(module, _ConvTransposeNd):
        first, second = second, first
    return {"out_channels": first, "in_channels": second}


def _of_weight(module: nn.Module, weight: tuple[int, ...], groups: int | None) -> dict[str, SizeValue]:
    if isinstance(module, _ConvNd):
        return _of_convolution(module, weight, groups or module.groups)
    if isinstance(module, nn.Linear):
        return {"out_features": weight[0], "in_features": weight[1]}
    if isinstance(module, _NormBase):
        return {"num_features": weight[0]}
    if isinstance(module, nn.GroupNorm):
        return {"num_channels": weight[0]}
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return {"normalized_shape": weight}
    if isinstance(module, nn.Embedding):
        return {"num_embeddings": weight[0], "embedding_dim": weight[1]}
    return {"num_parameters": weight[0]} if isinstance(module, nn.PReLU) else {}


def _of_attention(
    module: nn.MultiheadAttention, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, SizeValue]:
    packed = shapes.get("in_proj_weight")
    width, key, value = ((packed or shapes[f"{side}_proj_weight"])[1] for side in "qkv")
    return {"embed_dim": width, "kdim": key, "vdim": value, "head_dim": width // module.num_heads}


def declared(
    module: nn.Module, shapes: Mapping[str, tuple[int, ...]], groups: int | None
) -> dict[str, SizeValue]:
    """The sizes that a torch.nn layer states about itself, given the shapes of its own tensors.

    Most are never read by a forward pass, but people and exporters read them.

    Args:
        module: the layer.
        shapes: shape of each parameter and buffer of the layer, by its name in the layer.
        groups: the number of groups that a convolution will have; None for what it has.
    """
    if isinstance(module, nn.MultiheadAttention):
        return _of_attention(module, shapes)
    first = shapes.get("weight") or shapes.get("running_mean")
    return _of_weight(module, first, groups) if first else {}
