"""Look-ups: an indexed dim is pinned, since a cut would change what its numbers mean; the other dims pass."""

import torch

from seg_pruning.surgery.labels import LabelSet, span, touching
from seg_pruning.surgery.ledger import Call, Ledger
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
    """Leading dims that are indexed by tensors are pinned; the dims behind them pass."""
    x, indices = call["self"], call["indices"]
    used = [d for d, i in enumerate(indices) if i is not None]
    for i in indices:
        if i is not None:
            ledger.pin(ledger.labels(i), f"{call.name} reads by number")
    by_mask = any(i is not None and i.dtype in (torch.bool, torch.uint8) and i.ndim != 1 for i in indices)
    if by_mask or used != list(range(len(used))):
        ledger.pin(ledger.labels(x), f"{call.name} reads by number")
        return ((),)
    ledger.pin(touching(ledger.labels(x), used), f"{call.name} reads channels by their number")
    lead = call.outputs[0].ndim - (x.ndim - len(used))
    passing = [a for a in ledger.labels(x) if not set(span(a)) & set(used)]
    return (tuple(a.reshape((1,) * lead + a.shape[len(used) :]) for a in passing),)
