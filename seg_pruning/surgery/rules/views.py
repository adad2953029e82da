"""Reshape, permute, expand and their kin: the same operation on the label arrays."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch

from seg_pruning.surgery.entries import NO_DIM, Call
from seg_pruning.surgery.expressions import Expression
from seg_pruning.surgery.labels import LabelArray, LabelSet, Shape, in_several_rows, reshape, segments, span
from seg_pruning.surgery.ledger import Ledger
from seg_pruning.surgery.rules.registry import rule
from seg_pruning.surgery.sizes import Size

aten = torch.ops.aten

Run: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]


@rule(aten.view, aten._unsafe_view, aten._reshape_alias, aten.reshape)
def view(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Each array is viewed alike; an axis split into several keeps equal numbers in each row."""
    old, new = call["self"].shape, call.outputs[0].shape
    if 0 in old or call["self"].numel() != call.outputs[0].numel():
        ledger.pin(ledger.labels(call["self"]), f"{call.name} is empty or splits elements")
        return ((),)
    runs = segments(old, new)
    arrays = [_in_order(ledger, array, runs, call.name) for array in ledger.labels(call["self"])]
    found = []
    every = [reshape(array, old, new) for array in arrays]
    alone = {span(viewed)[0] for viewed in every if len(span(viewed)) == 1}
    for array, viewed in zip(arrays, every, strict=True):
        if any(_interleaved(ledger, call, array, viewed, run) for run in runs):
            why = "lays positions and channels anew, differently for each image size"
            ledger.pin(array, f"{call.name} {why}")
        elif (left := _sized(ledger, call, viewed, (old, new), alone)) is not None:
            found.append(left)
    return (tuple(found),)


def _interleaved(ledger: Ledger, call: Call, array: LabelArray, viewed: LabelArray, run: Run) -> bool:
    """Whether channels that stood behind positions are cut up anew, in one view or in two."""
    before, after = run
    old = call["self"].shape
    if _in_heads(ledger, call, run):
        return False
    labelled, split = set(span(array)) & set(before), set(span(viewed)) & set(after)
    behind = any(old[d] > 1 and d not in labelled and d < max(labelled, default=0) for d in before)
    if behind and len(split) == 1:
        ledger.interleaved.add(viewed.tobytes())
    return len(split) > 1 and (behind or array.tobytes() in ledger.interleaved)


def _in_heads(ledger: Ledger, call: Call, run: Run) -> bool:
    """Whether `(..., heads * width)` is viewed as `(... * heads, width)`, and no image decides the width."""
    before, after = run
    old, new = call["self"].shape, call.outputs[0].shape
    last = after[-1] if after else 0
    if len(after) != 2 or len(before) < 2 or old[before[-1]] % new[last]:
        return False
    return type(_passed(call, len(new)).get(last)) is Size


def _in_order(ledger: Ledger, array: LabelArray, runs: Sequence[Run], what: str) -> LabelArray:
    """`array` such that what stays of it keeps the dense order when dims are laid along one axis.

    Where each row keeps its own columns, `(row, column)` can be laid on one axis. As `(column, row)` (a
    channel shuffle) whole columns have to leave: they are tied.
    """
    for before, _ in runs:
        merged = [d for d in before if d in span(array)]
        if len(merged) > 1:
            narrowing = ledger.narrow(array, merged, f"{what} lays blocks of equal width along one axis")
            if narrowing in merged[:-1]:
                array = ledger.tie_along(array, [d for d in merged if d != narrowing])
    return array


def _sized(
    ledger: Ledger, call: Call, array: LabelArray, shapes: tuple[Shape, Shape], alone: set[int]
) -> LabelArray | None:
    """What is left of `array` once what Python passed for its dims is noted, and how a split axis gives way.

    None where a number decides the only dim that could: the array is pinned then. The lengths of the dims
    `alone` are told by arrays that span nothing else.
    """
    old, new = shapes
    passed = _passed(call, len(new))
    rigid = {d for d in span(array) if type(passed.get(d)) is int and passed[d] != -1}
    for before, after in segments(old, new):
        split = [d for d in after if d in span(array)]
        if len(split) > 1 and (
            len([d for d in before if old[d] > 1]) == 1 or _in_heads(ledger, call, (before, after))
        ):
            array = _split(ledger, call, array, split, rigid)
    dim = ledger.narrowing(array)
    if dim in rigid:
        ledger.pin(array, f"{call.name} is given the number {new[dim]} for its length")
        return None
    own = [d for d in span(array) if len(span(array)) == 1 or d not in alone]
    sizes = {d: _size(ledger, call, d, new) for d in own}
    ledger.fit(array, sizes, NO_DIM if dim is None else dim)
    return array


def _split(ledger: Ledger, call: Call, array: LabelArray, split: list[int], rigid: set[int]) -> LabelArray:
    """The last dim that can gives way, row by row; what lies behind it leaves with it.

    Rows that keep their own columns stand in the dense order; columns that keep their own rows do not.
    """
    passed = _passed(call, array.ndim)
    sizes = [s.expression for d in split if isinstance(s := passed.get(d), Size)]
    twice = {d for d in split if isinstance(s := passed.get(d), Size) and sizes.count(s.expression) > 1}
    open_ = [d for d in split if d not in rigid]
    giving = ([d for d in open_ if d not in twice] or open_ or split)[-1]
    left = ledger.tie_along(array, [d for d in split if d > giving])
    if in_several_rows(left, giving):
        return ledger.tie_along(left, [d for d in span(left) if d != giving])
    flexible = [d for d in open_ if d < giving]
    order = [*(d for d in range(array.ndim) if d != giving and d not in flexible), *flexible, giving]
    why = f"{call.name} splits the axis in equal parts"
    ledger.equal_rows(left.transpose(order), why, stay=not flexible)
    return left


def _passed(call: Call, ndim: int) -> dict[int, int]:
    """What Python passed for each dim of the view; nothing where it did not name them all."""
    names_all = call.caller in ("view", "reshape", "_unsafe_view") and len(call.ints) == ndim
    return dict(enumerate(call.ints)) if names_all else {}


def _size(ledger: Ledger, call: Call, dim: int, new: Shape) -> Expression | None:
    passed = _passed(call, len(new))
    return ledger.size(call, new[dim], at=slice(dim, dim + 1) if passed else slice(None))


def _moved(labels: LabelSet, order: tuple[int, ...]) -> LabelSet:
    return tuple(array.transpose(order) for array in labels)


@rule(aten.permute)
def permute(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """The arrays' dims are permuted alike."""
    ndim = call["self"].ndim
    return (_moved(ledger.labels(call["self"]), tuple(d % ndim for d in call["dims"])),)


@rule(aten.transpose)
def transpose(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Two dims of the arrays change places."""
    ndim = call["self"].ndim
    order = list(range(ndim))
    if ndim:
        a, b = call["dim0"] % ndim, call["dim1"] % ndim
        order[a], order[b] = order[b], order[a]
    return (_moved(ledger.labels(call["self"]), tuple(order)),)


@rule(aten.t, aten.numpy_T)
def t(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """The dims are reversed."""
    return (_moved(ledger.labels(call["self"]), tuple(reversed(range(call["self"].ndim)))),)


@rule(aten.unsqueeze)
def unsqueeze(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """A dim of size 1 is added."""
    dim = call["dim"] % (call["self"].ndim + 1)
    return (tuple(np.expand_dims(array, dim) for array in ledger.labels(call["self"])),)


@rule(aten.squeeze)
def squeeze(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Dims of size 1 are dropped: viewing gives the same labels."""
    return (tuple(array.reshape(_squeezed(array, call)) for array in ledger.labels(call["self"])),)


def _squeezed(array: LabelArray, call: Call) -> list[int]:
    shape, dims = call["self"].shape, call.arguments.get("dim")
    dims = range(len(shape)) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = {d % len(shape) for d in dims if shape[d % len(shape)] == 1} if len(shape) else set()
    return [size for d, size in enumerate(array.shape) if d not in gone]


@rule(aten.expand)
def expand(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """A dim that grows from 1 holds copies of one value, so any of them may leave."""
    source, target = call["self"], call.outputs[0].shape
    added = len(target) - source.ndim
    grown = [d for d, size in enumerate(target) if size > 1 and (d < added or source.shape[d - added] == 1)]
    kept = tuple(a.reshape((1,) * added + a.shape) for a in ledger.labels(source))
    fresh = ledger.free([size if d in grown else 1 for d, size in enumerate(target)])
    return (kept + fresh,)


@rule(aten.repeat)
def repeat(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Copies end to end: the copies of a channel leave together; a dim that grows from 1 may shrink."""
    source, times = call["self"], call["repeats"]
    shape = (1,) * (len(times) - source.ndim) + tuple(source.shape)
    wide = [a.reshape((1,) * (len(shape) - a.ndim) + a.shape) for a in ledger.labels(source)]
    tiled = tuple(np.tile(a, [t if d in span(a) else 1 for d, t in enumerate(times)]) for a in wide)
    return (tiled + ledger.free([t if size == 1 else 1 for size, t in zip(shape, times, strict=True)]),)
