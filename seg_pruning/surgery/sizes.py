"""Ints that Python reads, followed into the shapes that they decide.

A forward pass reads widths from attributes (`x.view(b, self.heads, self.dim // self.heads)`) and from shapes
(`b, n, c = x.shape`). While a network is traced each such int is a `Size`, which remembers where it was read
and what was computed with it, so that a rule can say which shape adapts by itself, which attribute has to be
rewritten when channels leave, and which axes have to shrink alike.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from seg_pruning.surgery.labels import LabelArray

SizeValue: TypeAlias = int | tuple[int, ...]


@dataclass(frozen=True, order=True, slots=True)
class Attribute:
    """An int held by a module: `model.get_submodule(module).<name>`, or an entry of a tuple or list."""

    module: str
    name: str
    index: int | None = None

    def __str__(self) -> str:
        path = f"{self.module}.{self.name}" if self.module else self.name
        return path if self.index is None else f"{path}[{self.index}]"


@dataclass(frozen=True, eq=False, slots=True)
class Extent:
    """The length of a tensor along `dim`, where `labels` span it: it adapts by itself."""

    labels: LabelArray
    dim: int


@dataclass(frozen=True, eq=False, slots=True)
class Computed:
    """What Python computed from two sizes."""

    operator: Literal["+", "-", "*", "//"]
    left: "Expression"
    right: "Expression"


Expression: TypeAlias = int | Attribute | Extent | Computed

_COMPUTE: Mapping[str, Callable[[int, int], int]] = {
    "+": int.__add__,
    "-": int.__sub__,
    "*": int.__mul__,
    "//": int.__floordiv__,
}


class Size(int):
    """An int that remembers how it came about.

    Attributes:
        expression: what was read and computed.
        owner: the pass in which it was read; another pass must not believe it.
    """

    expression: Expression
    owner: object

    def __new__(cls, value: int, expression: Expression, owner: object) -> "Size":
        """An int of `value` that came about as `expression` says."""
        size = super().__new__(cls, value)
        size.expression = expression
        size.owner = owner
        return size

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        """A copied or pickled size is a plain int: a forward pass may copy what it reads."""
        return int, (int(self),)

    def _computed(self, operator: Literal["+", "-", "*", "//"], left: object, right: object) -> Any:
        if not isinstance(left, int) or not isinstance(right, int):
            return NotImplemented
        value = _COMPUTE[operator](int(left), int(right))
        return Size(value, Computed(operator, _expression(left), _expression(right)), self.owner)

    def __add__(self, other: Any) -> Any:
        """Remembered."""
        return self._computed("+", self, other)

    def __radd__(self, other: Any) -> Any:
        """Remembered."""
        return self._computed("+", other, self)

    def __sub__(self, other: Any) -> Any:
        """Remembered."""
        return self._computed("-", self, other)

    def __rsub__(self, other: Any) -> Any:
        """Remembered."""
        return self._computed("-", other, self)

    def __mul__(self, other: Any) -> Any:
        """Remembered."""
        return self._computed("*", self, other)

    def __rmul__(self, other: Any) -> Any:
        """Remembered; of a sequence, as many copies of it."""
        return self._computed("*", other, self)

    def __floordiv__(self, other: Any) -> Any:
        """Remembered."""
        return self._computed("//", self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        """Remembered."""
        return self._computed("//", other, self)

    def __neg__(self) -> Any:
        """Remembered."""
        return self._computed("-", 0, self)


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


def leaves(expression: Expression) -> Iterator[Attribute | Extent]:
    """All attributes and extents of an expression, each as often as it stands there."""
    if isinstance(expression, Computed):
        yield from leaves(expression.left)
        yield from leaves(expression.right)
    elif not isinstance(expression, int):
        yield expression


def factors(expression: Expression) -> tuple[list[Expression], list[Expression]] | None:
    """The factors above and below the line of a product or quotient; None for sums.

    >>> factors(Computed("//", Attribute("", "dim"), Attribute("", "heads")))
    ([Attribute(module='', name='dim', index=None)], [Attribute(module='', name='heads', index=None)])
    """
    if not isinstance(expression, Computed):
        return [expression], []
    if expression.operator in "+-":
        return None
    left, right = factors(expression.left), factors(expression.right)
    if left is None or right is None:
        return None
    if expression.operator == "*":
        return left[0] + right[0], left[1] + right[1]
    return left[0] + right[1], left[1] + right[0]


def evaluate(expression: Expression, value_of: Callable[[Attribute | Extent], int]) -> int:
    """The value of an expression, given those of its leaves."""
    if isinstance(expression, Computed):
        left, right = evaluate(expression.left, value_of), evaluate(expression.right, value_of)
        return _COMPUTE[expression.operator](left, right)
    return expression if isinstance(expression, int) else value_of(expression)


def invert(
    expression: Expression, unknown: Attribute, target: int, value_of: Callable[[Attribute | Extent], int]
) -> int | None:
    """The value of `unknown` for which `expression` is `target`; None where there is none."""
    while isinstance(expression, Computed):
        on_left = unknown in leaves(expression.left)
        if on_left and unknown in leaves(expression.right):
            return None
        other = evaluate(expression.right if on_left else expression.left, value_of)
        found = _undo(expression.operator, target, other, on_left=on_left)
        if found is None:
            return None
        target, expression = found, expression.left if on_left else expression.right
    return target if expression == unknown else None


def _undo(operator: str, target: int, other: int, *, on_left: bool) -> int | None:
    if operator == "+":
        return target - other
    if operator == "-":
        return target + other if on_left else other - target
    if operator == "*":
        return target // other if other and target % other == 0 else None
    return target * other if on_left else None


def _tracked(value: object, module: str, name: str, owner: object) -> object | None:
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
def tracked_sizes(model: nn.Module, owner: object) -> Iterator[Mapping[Attribute, int]]:
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
    weight = shapes.get("weight")
    if isinstance(module, _ConvNd) and weight:
        return _of_convolution(module, weight, groups or module.groups)
    if isinstance(module, nn.Linear) and weight:
        return {"out_features": weight[0], "in_features": weight[1]}
    if isinstance(module, _NormBase) and (shape := weight or shapes.get("running_mean")):
        return {"num_features": shape[0]}
    if isinstance(module, nn.GroupNorm) and weight:
        return {"num_channels": weight[0]}
    if isinstance(module, nn.LayerNorm) and weight:
        return {"normalized_shape": weight}
    if isinstance(module, nn.Embedding) and weight:
        return {"num_embeddings": weight[0], "embedding_dim": weight[1]}
    if isinstance(module, nn.PReLU) and weight:
        return {"num_parameters": weight[0]}
    return {}
