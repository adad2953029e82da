"""Reshape, permute, expand and their kin: the same operation on the label arrays."""

import numpy as np
import torch

from seg_pruning.surgery.labels import LabelArray, LabelSet, Shape, reshape, segments, span
from seg_pruning.surgery.ledger import Call, Ledger
from seg_pruning.surgery.rules.registry import rule

aten = torch.ops.aten


@rule(aten.view, aten._unsafe_view, aten._reshape_alias, aten.reshape)
def view(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Each array is viewed alike; an axis split into several keeps equal numbers in each row."""
    old, new = call["self"].shape, call.outputs[0].shape
    if 0 in old or call["self"].numel() != call.outputs[0].numel():
        ledger.pin(ledger.labels(call["self"]), f"{call.name} is empty or splits elements")
        return ((),)
    viewed = tuple(reshape(array, old, new) for array in ledger.labels(call["self"]))
    for array in ledger.labels(call["self"]):
        for before, _ in segments(old, new):
            _keep_order(ledger, array, [d for d in before if d in span(array)], call.name)
    for array in viewed:
        _follow_sizes(ledger, call, array, old, new)
    return (viewed,)


def _keep_order(ledger: Ledger, array: LabelArray, merged: list[int], what: str) -> None:
    """Where each row keeps its own columns, only `(row, column)` can be laid on one axis in the dense order.

    As `(column, row)` (a channel shuffle) whole columns have to leave: they are tied.
    """
    if len(merged) < 2:
        return
    narrowing = _narrowing(ledger, array)
    if narrowing is None:
        ledger.pin(array, f"{what} lays jointly labelled dims along one axis")
    elif narrowing != merged[-1]:
        rest = [d for d in merged if d != narrowing]
        ledger.tie(array, array[tuple(slice(0, 1) if d in rest else slice(None) for d in range(array.ndim))])


def _narrowing(ledger: Ledger, array: LabelArray) -> int | None:
    """The dim along which `array` loses channels: its lines are rows of a block."""
    row = np.full(ledger.count, -1, dtype=np.int64)
    for block in ledger.blocks:
        row[:] = -1
        row[block.rows] = np.arange(len(block.rows))[:, None]
        rows = row[array]
        for d in span(array) if (rows >= 0).all() else ():
            if array.shape[d] == block.rows.shape[1] and (rows == rows.take([0], axis=d)).all():
                return d
    return None


def _follow_sizes(ledger: Ledger, call: Call, array: LabelArray, old: Shape, new: Shape) -> None:
    """The last dim of what an axis was split into gives way; whatever Python passed for it is rewritten."""
    for before, after in segments(old, new):
        split = [d for d in after if d in span(array)]
        if not split:
            continue
        if len([d for d in before if old[d] > 1]) == 1 and len(split) > 1:
            columns = np.moveaxis(array, split[-1], -1)
            ledger.equal_rows(
                columns.reshape(-1, new[split[-1]]), f"{call.name} splits the axis in equal parts"
            )
        place = split[-1] - len(new) if len(call.ints) >= len(new) else None
        at = slice(None) if place is None else slice(place, place + 1 or None)
        ledger.demand(call, new[split[-1]], _line(array, split[-1]), at=at)


def _line(array: LabelArray, dim: int) -> LabelArray:
    """The labels along `dim`, at the first index of all other dims."""
    index = tuple(slice(None) if d == dim else 0 for d in range(array.ndim))
    return array[index]


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
