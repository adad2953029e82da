"""Ops to which the order of indices matters, and look-ups by number along a dim."""

import torch
from torch import Tensor

from seg_pruning.surgery.entries import Call
from seg_pruning.surgery.labels import LabelSet
from seg_pruning.surgery.ledger import Ledger
from seg_pruning.surgery.rules.registry import rule
from seg_pruning.surgery.rules.windows import passing

aten = torch.ops.aten


@rule(aten.cumprod, aten.cummax, aten.cummin, aten._logcumsumexp, aten.logcumsumexp, aten.renorm)
def running(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Runs along a dim; the other dims pass."""
    x = call["self"]
    dims = [call["dim"] % x.ndim] if x.ndim else []
    if call.func.overloadpacket is aten.renorm:
        dims = [d for d in range(x.ndim) if d not in dims]  # a norm over all but one dim
    return (passing(ledger, ledger.labels(x), dims, f"{call.name} runs along it"),) * len(call.outputs)


@rule(aten.tril, aten.triu)
def triangle(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """What stays depends on the numbers of row and column; batches pass."""
    x = call["self"]
    return (passing(ledger, ledger.labels(x), [x.ndim - 2, x.ndim - 1], f"{call.name} counts along it"),)


@rule(aten.kthvalue, aten.median, aten.mode, aten.nanmedian)
def ranked(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """One of the values along a dim, or of all."""
    x = call["self"]
    given, keepdim = call.arguments.get("dim"), bool(call.arguments.get("keepdim"))
    dims = tuple(range(x.ndim)) if given is None else (given % x.ndim,) if x.ndim else ()
    rest = passing(ledger, ledger.labels(x), dims, f"{call.name} ranks along it")
    return (tuple(a if keepdim else a.squeeze(dims) for a in rest),) * len(call.outputs)


@rule(aten.gather)
def gather(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Reads along a dim by number; along the other dims the input and the numbers meet."""
    return (_by_number(ledger, call, [call["self"], call["index"]]),)


@rule(aten.scatter, aten.scatter_add, aten.scatter_reduce)
def scatter(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Writes along a dim by number; along the other dims the tensors meet."""
    source = call.arguments.get("src")
    tensors = [call["self"], call["index"], *([source] if isinstance(source, Tensor) else [])]
    return (_by_number(ledger, call, tensors),)


def _by_number(ledger: Ledger, call: Call, tensors: list[Tensor]) -> LabelSet:
    """The tensors' labels met along all dims but the call's, along which they are pinned."""
    ndim = tensors[0].ndim
    if not ndim or any(t.ndim != ndim for t in tensors):
        for t in tensors:
            ledger.pin(ledger.labels(t), f"{call.name} reads by number")
        return ()
    dim = call["dim"] % ndim
    operands = []
    for t in tensors:
        rest = passing(ledger, ledger.labels(t), [dim], f"{call.name} reads by number")
        operands.append((rest, tuple(1 if d == dim else size for d, size in enumerate(t.shape))))
    sizes = [{shape[d] for _, shape in operands} for d in range(ndim)]
    if all(len(found) == 1 for found in sizes):
        return ledger.merge(operands, ndim, call.name)
    for rest, _ in operands:  # the numbers cover a corner only
        ledger.pin(rest, f"{call.name} reads by number")
    return ()


@rule(aten.index_add, aten.index_copy, aten.index_fill, aten.index_reduce)
def index_write(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Writes rows by their number; along the other dims what is written meets what it is written to."""
    x, source = call["self"], call.arguments.get("source")
    ledger.pin(ledger.labels(call["index"]), f"{call.name} writes by number")
    tensors = [x, source] if isinstance(source, Tensor) and source.ndim == x.ndim else [x]
    return (_by_number(ledger, call, tensors),)
