"""Concatenate, stack, split, slice, select, pad: labels are joined and cut as the tensors are."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from seg_pruning.surgery.entries import Call
from seg_pruning.surgery.expressions import Computed
from seg_pruning.surgery.labels import FIXED, LabelArray, LabelSet, span, with_fixed
from seg_pruning.surgery.ledger import Ledger
from seg_pruning.surgery.rules.contractions import is_parameter
from seg_pruning.surgery.rules.registry import rule

aten = torch.ops.aten


def _concatenate(
    ledger: Ledger, pieces: Sequence[tuple[LabelSet, tuple[int, ...]]], dim: int, what: str
) -> LabelSet:
    """Arrays that span `dim` are laid end to end; the others meet as in an element-wise op."""
    ndim = len(pieces[0][1])
    across = [(tuple(a for a in labels if dim not in span(a)), shape) for labels, shape in pieces]
    result = list(ledger.merge(across, ndim, what))
    spans = {span(array) for labels, _ in pieces for array in labels if dim in span(array)}
    if spans:
        dims = tuple(sorted(set().union(*spans)))
        parts = [with_fixed(tuple(a for a in s if dim in span(a)), dims, shape) for s, shape in pieces]
        result.append(np.concatenate(parts, axis=dim))
    return tuple(result)


@rule(aten.cat)
def cat(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Skip connections: each source keeps its own labels, whatever their numbers."""
    tensors = [t for t in call["tensors"] if t.shape != (0,)]
    pieces = [(ledger.labels(t), tuple(t.shape)) for t in tensors]
    for t in tensors:
        _one_along(ledger, t, call["dim"] % t.ndim, call.name)
    return (_concatenate(ledger, pieces, call["dim"] % tensors[0].ndim, call.name),)


def _one_along(ledger: Ledger, tensor: Tensor, dim: int, what: str) -> None:
    """Two arrays that both span the joined dim cannot be laid end to end as one."""
    found = [array for array in ledger.labels(tensor) if dim in span(array)]
    if len(found) > 1:
        ledger.pin(tuple(found), f"{what} of jointly labelled dims")


@rule(aten.stack)
def stack(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """The tensors meet, index by index, along a new rigid dim."""
    dim = call["dim"] % (call["tensors"][0].ndim + 1)
    operands = [(ledger.labels(t), t.shape) for t in call["tensors"]]
    merged = ledger.merge(operands, call["tensors"][0].ndim, call.name)
    return (tuple(np.expand_dims(array, dim) for array in merged),)


def _pieces(ledger: Ledger, call: Call, dim: int, what: str) -> tuple[LabelSet, ...]:
    """The labels of consecutive pieces, which are the call's outputs."""
    source = ledger.labels(call["self"])
    ends = np.cumsum([o.shape[dim] for o in call.outputs])[:-1]
    cut: list[list[LabelArray]] = [[] for _ in call.outputs]
    for array in source:
        parts = np.split(array, ends, axis=dim) if dim in span(array) else [array] * len(cut)
        for piece, part in zip(cut, parts, strict=True):
            piece.append(part)
        if dim in span(array):
            _size_pieces(ledger, call, parts, dim, what)
    return tuple(tuple(piece) for piece in cut)


def _size_pieces(ledger: Ledger, call: Call, parts: Sequence[LabelArray], dim: int, what: str) -> None:
    """Pieces of one length keep equal numbers; what Python passed for a length is rewritten."""
    lengths = [part.shape[dim] for part in parts]
    listed = [int(i) for i in call.ints[: len(parts)]] == lengths and len(parts) > 1
    one = bool(call.ints) and call.ints[0] == lengths[0] and call.caller != "chunk"
    equal = len(set(lengths)) == 1
    if equal and not listed:
        ledger.equal_rows(
            np.stack([np.moveaxis(p, dim, -1) for p in parts]), f"{what} cuts the axis in equal parts"
        )
    if call.caller == "chunk" and equal:
        return
    for i, part in enumerate(parts):
        place = i if listed else 0
        size = ledger.size(call, lengths[i], at=slice(place, place + 1)) if listed or one else None
        if size is not None:
            ledger.fit(part, {dim: size}, dim)
        else:
            ledger.pin(part, f"{what} cuts the axis at numbers that cannot be rewritten")


@rule(aten.split, aten.split_with_sizes, aten.chunk, aten.unsafe_split, aten.unsafe_split_with_sizes)
def split(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Each piece takes its share of the labels."""
    return _pieces(ledger, call, call["dim"] % call["self"].ndim, call.name)


@rule(aten.unbind)
def unbind(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """One output for each index: an axis that spans this dim alone is pinned, since their number is fixed."""
    dim = call["dim"] % call["self"].ndim
    return tuple(_selected(ledger, call, dim, i) for i in range(len(call.outputs)))


@rule(aten.select)
def select(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """One index of a dim."""
    dim = call["dim"] % call["self"].ndim
    return (_selected(ledger, call, dim, call["index"]),)


def _selected(ledger: Ledger, call: Call, dim: int, index: int) -> LabelSet:
    kept = []
    for array in ledger.labels(call["self"]):
        if span(array) == (dim,):
            ledger.pin(array, f"{call.name} reads channels by their number")
            continue
        if dim in span(array):
            rows = [d for d in span(array) if d != dim]
            if ledger.narrow(array, rows, f"{call.name} reads a part of the axis by its number") == dim:
                ledger.tie_along(array, [dim])
        kept.append(array.take([index if dim in span(array) else 0], axis=dim).squeeze(dim))
    return tuple(kept)


@rule(aten.slice)
def slice_(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """A run of indices: its bounds are sizes that can be rewritten, or the indices before them are pinned."""
    source, dim = call["self"], call["dim"] % call["self"].ndim
    bounds = slice(call["start"], call["end"], call["step"]).indices(source.shape[dim])
    cut = []
    for array in ledger.labels(source):
        if dim in span(array) and bounds != (0, source.shape[dim], 1):
            if is_parameter(ledger, source):
                # What another image size would read of a table of places is not seen here.
                ledger.pin(array, f"{call.name} reads a part of a parameter")
            _bound_run(ledger, call, array, dim, bounds)
        wide = dim in span(array)
        cut.append(array[(slice(None),) * dim + (slice(*bounds),)] if wide else array)
    return (ledger.distinct(cut),)


def _bound_run(ledger: Ledger, call: Call, array: LabelArray, dim: int, bounds: tuple[int, int, int]) -> None:
    """Notes how the bounds of a slice came about."""
    start, stop, step = bounds
    length = array.shape[dim]
    if ledger.narrowing(array) not in (dim, None):
        return  # whole rows, all of which stay
    if step != 1 and stop == length and length % step == 0:
        lines = np.moveaxis(array, dim, -1)
        ledger.tie_along(lines.reshape(*lines.shape[:-1], -1, step), [lines.ndim])
    elif step != 1 or stop <= start:
        ledger.pin(array, f"{call.name} reads channels by their number")
    else:
        begin, end = call["start"] or 0, length if call["end"] is None else call["end"]
        if start:
            _bound(ledger, call, array, dim, (0, start) if begin > 0 else (start, length))
        if stop < length:
            _bound(ledger, call, array, dim, (start, stop) if end >= 0 else (stop, length))


def _bound(ledger: Ledger, call: Call, array: LabelArray, dim: int, run: tuple[int, int]) -> None:
    """The indices of `run` keep the number that Python passes for its end, or for its length, or all stay."""
    first, last = run
    length = array.shape[dim]

    def part(a: int, b: int) -> LabelArray:
        return array[(slice(None),) * dim + (slice(a, b),)]

    if first == last:
        return
    sized = {last: part(0, last), last - first: part(first, last)}
    for value, labels in sized.items():
        if (size := ledger.size(call, value)) is not None:
            ledger.fit(labels, {dim: size}, dim)
            return
    if last == length and (size := ledger.size(call, first - last)) is not None:
        ledger.fit(part(first, last), {dim: Computed("-", 0, size)}, dim)
        return
    ledger.pin(part(first, last), f"{call.name} reads channels by their number")


@rule(aten.constant_pad_nd)
def constant_pad(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Padding adds indices that never leave."""
    source, pad = call["self"], call["pad"]
    widths = [(0, 0)] * source.ndim
    for i in range(len(pad) // 2):
        widths[source.ndim - 1 - i] = (int(pad[2 * i]), int(pad[2 * i + 1]))
    padded = []
    for array in ledger.labels(source):
        if any(min(widths[d]) < 0 for d in span(array)):
            ledger.pin(array, f"{call.name} crops channels by their number")
            continue
        own = [w if d in span(array) else (0, 0) for d, w in enumerate(widths)]
        padded.append(np.pad(array, own, constant_values=FIXED))
    return (tuple(padded),)
