"""How an int that sizes a tensor came about: read from an attribute or a shape, and computed from others."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from seg_pruning.surgery.labels import LabelArray

Operator: TypeAlias = Literal["+", "-", "*", "//"]


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

    operator: Operator
    left: "Expression"
    right: "Expression"


Expression: TypeAlias = int | Attribute | Extent | Computed

COMPUTE: Mapping[Operator, Callable[[int, int], int]] = {
    "+": int.__add__,
    "-": int.__sub__,
    "*": int.__mul__,
    "//": int.__floordiv__,
}


def leaves(expression: Expression) -> Iterator[Attribute | Extent]:
    """All attributes and extents of an expression, each as often as it stands there."""
    if isinstance(expression, Computed):
        yield from leaves(expression.left)
        yield from leaves(expression.right)
    elif not isinstance(expression, int):
        yield expression


def factors(expression: Expression) -> tuple[list[Expression], list[Expression]] | None:
    """The factors above and below the line of a product or quotient, signs apart; None for sums.

    >>> factors(Computed("//", Attribute("", "dim"), Attribute("", "heads")))
    ([Attribute(module='', name='dim', index=None)], [Attribute(module='', name='heads', index=None)])
    """
    if not isinstance(expression, Computed):
        return [expression], []
    if expression.operator == "-" and expression.left == 0:
        return factors(expression.right)
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
        return COMPUTE[expression.operator](left, right)
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


def _undo(operator: Operator, target: int, other: int, *, on_left: bool) -> int | None:
    if operator == "+":
        return target - other
    if operator == "-":
        return target + other if on_left else other - target
    if operator == "*":
        return target // other if other and target % other == 0 else None
    return target * other if on_left else None
