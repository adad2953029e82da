"""Sizes that Python passed: which axes they couple, and the values that attributes take after a cut. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import gcd

import numpy as np
import numpy.typing as npt

from seg_pruning.surgery.entries import Blocks, Fit
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.expressions import Attribute, Expression, Extent, evaluate, factors, invert, leaves
from seg_pruning.surgery.labels import LabelArray, kept_extents

Keep = npt.NDArray[np.bool_]
Leaf = Attribute | Extent


def couplings(fits: Sequence[Fit], values: Mapping[Attribute, int], root: LabelArray) -> list[Blocks]:
    """Axes that one size decides lose the same share: as rows as long as their greatest common divisor.

    Args:
        fits: what Python passed.
        values: the present value of each attribute.
        root: for each label, one that stands for all that it is tied to.
    """
    fixed = _fixed(fits)
    axes: dict[object, tuple[Leaf, list[LabelArray]]] = {}
    for fit in fits:
        for leaf in _proportional(fit, fixed):
            axes.setdefault(_key(leaf), (leaf, []))[1].append(_lines(fit.labels, fit.dim))
    return [block for leaf, lines in axes.values() for block in _coupled(leaf, lines, values, root)]


def _key(leaf: Leaf) -> object:
    """The same for two readings of the same axis."""
    if isinstance(leaf, Attribute):
        return leaf
    return leaf.labels.tobytes(), leaf.labels.shape, leaf.dim


def _coupled(
    leaf: Leaf, lines: list[LabelArray], values: Mapping[Attribute, int], root: LabelArray
) -> Iterator[Blocks]:
    if isinstance(leaf, Extent):
        own, size = _lines(leaf.labels, leaf.dim), leaf.labels.shape[leaf.dim]
        others = [axis for axis in lines if not _repeats(root[axis], root[own])]
        lines, reason = [own, *others] if others else [], "the length of one axis sizes another one"
    else:
        size, reason = values[leaf], f"{leaf} sizes several axes"
    if not lines:
        return
    width = _distinct_width([root[axis] for axis in lines], gcd(size, *(axis.shape[1] for axis in lines)))
    rows = np.unique(np.concatenate([axis.reshape(-1, width) for axis in lines]), axis=0)
    if len(rows) > 1:
        yield Blocks(rows, reason)


def _distinct_width(lines: Sequence[LabelArray], width: int) -> int:
    """The width of rows that can shrink alike: `width`, or a divisor of it.

    Rows can shrink alike when each holds as many units once, twice and so on as every other. Equal counts in
    rows of a divisor are equal counts in those of `width`.
    """
    for part in [width, *(n for n in range(width // 2, 1, -1) if width % n == 0)]:
        rows = np.sort(np.concatenate([axis.reshape(-1, part) for axis in lines]), axis=1)
        if (rows[:, 1:] != rows[:, :-1]).all():
            return part  # no row repeats a unit
        counts = [np.sort(np.unique(row, return_counts=True)[1]) for row in rows]
        if all(np.array_equal(counts[0], count) for count in counts):
            return part
    return width


def _repeats(axis: LabelArray, own: LabelArray) -> bool:
    """Whether `axis` holds the units of `own`, each as often as every other: they shrink alike anyhow."""
    labels, counts = np.unique(axis, return_counts=True)
    found, once = np.unique(own, return_counts=True)
    same = np.array_equal(labels, found)
    return same and len(np.unique(counts)) == 1 and len(np.unique(once)) == 1


def _lines(labels: LabelArray, dim: int) -> LabelArray:
    return np.moveaxis(labels, dim, -1).reshape(-1, labels.shape[dim])


def _fixed(fits: Sequence[Fit]) -> set[Attribute]:
    """Attributes that count something which stays: blocks, or what another size is divided by."""
    fixed: set[Attribute] = set()
    for fit in fits:
        for dim, expression in fit.sizes:
            parts = factors(expression)
            staying = leaves(expression) if dim != fit.dim else _attributes(parts[1]) if parts else ()
            fixed.update(leaf for leaf in staying if isinstance(leaf, Attribute))
    return fixed


def _attributes(expressions: Sequence[Expression]) -> Iterator[Attribute]:
    return (e for e in expressions if isinstance(e, Attribute))


def _proportional(fit: Fit, fixed: set[Attribute]) -> list[Leaf]:
    """The size with which the giving axis of `fit` grows and shrinks, if there is one."""
    expression = dict(fit.sizes).get(fit.dim)
    parts = None if expression is None else factors(expression)
    above = [leaf for leaf in parts[0] if isinstance(leaf, Attribute | Extent)] if parts else []
    moving = [leaf for leaf in above if leaf not in fixed] or above
    return moving if len(moving) == 1 else []


def solve(fits: Sequence[Fit], values: Mapping[Attribute, int], keep: Keep) -> dict[Attribute, int]:
    """The attributes that change, and their new values, so that every size fits what is kept.

    Args:
        fits: what Python passed.
        values: the present value of each attribute.
        keep: for every label, whether it is kept.

    Raises:
        PruningError: an attribute would need two values, or nothing that can be rewritten gives a size.
    """
    known: dict[Attribute, int] = {}
    equations = [pair for fit in fits for pair in _equations(fit, keep)]
    pending = sorted(equations, key=lambda pair: len(set(leaves(pair[0]))))

    def present(leaf: Leaf) -> int:
        return _value(leaf, known if leaf in known else values, keep)

    while pending:
        later = [pair for pair in pending if not _settle(*pair, known, values, present)]
        if len(later) == len(pending):
            attribute = _assumed(later[0][0], known)
            known[attribute] = values[attribute]
        pending = later
    final = {**values, **known}
    for expression, target in equations:  # one that fitted before another one changed its attribute
        _settle(expression, target, final, values, present)
    if zero := [str(a) for a, value in known.items() if value < 1]:
        raise PruningError(f"the plan keeps no channel of an axis that {zero[0]} sizes; keep 1 or more")
    return {a: known[a] for a in sorted(known) if known[a] != values[a]}


def _assumed(expression: Expression, known: Mapping[Attribute, int]) -> Attribute:
    """Which of several unknown attributes stays as it is: what is divided by, else the last one."""
    parts = factors(expression)
    below = [a for a in _attributes(parts[1]) if a not in known] if parts else []
    unknown = [a for a in leaves(expression) if isinstance(a, Attribute) and a not in known]
    return (below or unknown)[-1]


def _settle(
    expression: Expression,
    target: int,
    known: dict[Attribute, int],
    values: Mapping[Attribute, int],
    value_of: Callable[[Leaf], int],
) -> bool:
    """Whether the equation is done with; an attribute that it leaves no choice becomes known."""
    attributes = {leaf for leaf in leaves(expression) if isinstance(leaf, Attribute)}
    unknown = attributes - known.keys()
    fits = evaluate(expression, value_of) == target
    if not unknown:
        if not fits:
            held = ", ".join(f"{a} = {known[a]}" for a in sorted(attributes)) or "an axis of its own"
            raise PruningError(f"a size would have to be {target}, which {held} does not give")
        return True
    bare = isinstance(expression, Attribute)
    if len(unknown) > 1 or (fits and not bare):
        return fits
    (attribute,) = unknown
    value = invert(expression, attribute, target, value_of)
    if value is None:
        raise PruningError(f"no value of {attribute}, now {values[attribute]}, gives a size of {target}")
    known[attribute] = value
    return True


def _equations(fit: Fit, keep: Keep) -> list[tuple[Expression, int]]:
    lengths = _kept_lengths(fit.labels, keep)
    return [(expression, lengths[dim]) for dim, expression in fit.sizes]


def value_of(expression: Expression, values: Mapping[Attribute, int], keep: Keep) -> int:
    """What `expression` gives, with attributes of `values`, when of all labels `keep` are kept."""
    return evaluate(expression, lambda leaf: _value(leaf, values, keep))


def _value(leaf: Leaf, values: Mapping[Attribute, int], keep: Keep) -> int:
    return _kept_lengths(leaf.labels, keep)[leaf.dim] if isinstance(leaf, Extent) else values[leaf]


def _kept_lengths(labels: LabelArray, keep: Keep) -> tuple[int, ...]:
    kept = kept_extents(keep[labels])
    if kept is None:
        raise PruningError("the plan leaves an axis with lines of different lengths")
    return kept[0]
