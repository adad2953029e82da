"""Concatenate, stack, split, slice, select, pad: labels are joined and cut as the tensors are."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from seg_pruning.surgery.labels import FIXED, LabelArray, LabelSet, span
from seg_pruning.surgery.ledger import Call, Ledger, with_fixed
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
        _pin_partial(ledger, t, call["dim"] % t.ndim, call.name)
    return (_concatenate(ledger, pieces, call["dim"] % tensors[0].ndim, call.name),)


def _pin_partial(ledger: Ledger, tensor: Tensor, dim: int, what: str) -> None:
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
    lengths = {part.shape[dim] for part in parts}
    if len(lengths) == 1:
        rows = np.stack([part.reshape(-1) for part in parts])
        ledger.equal_rows(rows, f"{what} cuts the axis in equal parts")
    lines = [np.moveaxis(part, dim, 0).reshape(part.shape[dim], -1)[:, 0] for part in parts]
    listed = [int(i) for i in call.ints[: len(lines)]] == [len(line) for line in lines]
    places = [slice(i, i + 1) if listed else slice(None) for i in range(len(lines))]
    sized = [ledger.demand(call, len(line), line, at=at) for line, at in zip(lines, places, strict=True)]
    if len(lengths) > 1 and not all(sized):
        for part in parts:
            ledger.pin(part, f"{what} cuts the axis at numbers that cannot be rewritten")


@rule(aten.split, aten.split_with_sizes, aten.chunk)
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
    labels = ledger.labels(call["self"])
    for array in labels:
        if span(array) == (dim,):
            ledger.pin(array, f"{call.name} reads channels by their number")
        elif dim in span(array):
            rows = np.moveaxis(array, dim, 0).reshape(array.shape[dim], -1)
            ledger.equal_rows(rows, f"{call.name} reads a part of the axis by its number")
    kept = [a for a in labels if span(a) != (dim,)]
    return tuple(a.take([index if dim in span(a) else 0], axis=dim).squeeze(dim) for a in kept)


@rule(aten.slice)
def slice_(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """A run of indices; the runs of one length keep equal numbers, unless Python's bound can be rewritten."""
    source, dim = call["self"], call["dim"] % call["self"].ndim
    start, stop, step = slice(call["start"], call["end"], call["step"]).indices(source.shape[dim])
    cut = []
    for array in ledger.labels(source):
        if dim not in span(array):
            cut.append(array)
            continue
        if (start, stop, step) != (0, source.shape[dim], 1):
            _size_slice(ledger, call, array, dim, (start, stop, step))
        cut.append(array[(slice(None),) * dim + (slice(start, stop, step),)])
    return (tuple(cut),)


def _size_slice(
    ledger: Ledger, call: Call, array: LabelArray, dim: int, bounds: tuple[int, int, int]
) -> None:
    start, stop, step = bounds
    size, length = array.shape[dim], stop - start
    if step == 1 and length > 0 and size % length == 0 and start % length == 0 and span(array) == (dim,):
        ledger.equal_rows(array.reshape(-1, length), f"{call.name} cuts the axis in equal parts")
        ledger.demand(call, length, array.reshape(-1, length)[0])
    else:
        ledger.pin(array, f"{call.name} reads channels by their number")


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
