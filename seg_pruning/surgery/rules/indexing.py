"""Look-ups: an indexed dim is pinned, since a cut would change what its numbers mean; the other dims pass."""

import torch

from seg_pruning.surgery.entries import Call
from seg_pruning.surgery.labels import LabelSet, span, touching
from seg_pruning.surgery.ledger import Ledger
from seg_pruning.surgery.rules.registry import rule

aten = torch.ops.aten


@rule(aten.embedding)
def embedding(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Rows of a table: its rows are pinned, its columns are the output's last dim."""
    weight, indices = call["weight"], call["indices"]
    ledger.pin(touching(ledger.labels(weight), [0]), f"{call.name} looks rows up by their number")
    ledger.pin(ledger.labels(indices), f"{call.name} looks rows up by their number")
    ledger.role(ledger.vector(weight, 1), "out")
    columns = [a for a in ledger.labels(weight) if span(a) == (1,)]
    return (tuple(a.reshape((1,) * indices.ndim + (-1,)) for a in columns),)


@rule(aten.index_select)
def index_select(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """The chosen dim is pinned; the others pass."""
    x, index = call["self"], call["index"]
    dim = call["dim"] % x.ndim
    ledger.pin(touching(ledger.labels(x), [dim]), f"{call.name} reads channels by their number")
    ledger.pin(ledger.labels(index), f"{call.name} reads channels by their number")
    return (tuple(a for a in ledger.labels(x) if dim not in span(a)),)


@rule(aten.index)
def index(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Dims that are indexed by tensors are pinned; the others pass."""
    x, indices = call["self"], call["indices"]
    used = [d for d, i in enumerate(indices) if i is not None]
    for i in indices:
        if i is not None:
            ledger.pin(ledger.labels(i), f"{call.name} reads by number")
    by_mask = any(i is not None and i.dtype in (torch.bool, torch.uint8) and i.ndim != 1 for i in indices)
    side_by_side = used == list(range(used[0], used[0] + len(used)))
    if by_mask or not side_by_side:
        ledger.pin(ledger.labels(x), f"{call.name} reads by number")
        return ((),)
    ledger.pin(touching(ledger.labels(x), used), f"{call.name} reads channels by their number")
    made, first, end = call.outputs[0].ndim - (x.ndim - len(used)), used[0], used[0] + len(used)
    passing = [a for a in ledger.labels(x) if not set(span(a)) & set(used)]
    return (tuple(a.reshape((*a.shape[:first], *(1,) * made, *a.shape[end:])) for a in passing),)
