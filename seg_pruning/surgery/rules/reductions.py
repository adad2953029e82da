"""Sums, means, extremes: a labelled dim that is reduced is reduced over what is kept."""

from collections.abc import Sequence

import torch

from seg_pruning.surgery.labels import LabelArray, LabelSet, span, touching
from seg_pruning.surgery.ledger import Call, Ledger
from seg_pruning.surgery.rules.registry import rule

aten = torch.ops.aten


def _dims(call: Call) -> tuple[int, ...]:
    """The dims that the call reduces, all of them when it names none."""
    ndim = call.tensors[0].ndim
    given = call.arguments.get("dim")
    if given is None or (isinstance(given, Sequence) and not given):
        return tuple(range(ndim))
    return tuple(d % ndim for d in ([given] if isinstance(given, int) else given)) if ndim else ()


def _without(array: LabelArray, dims: tuple[int, ...], *, keepdim: bool) -> LabelArray:
    return array if keepdim else array.squeeze(dims)


@rule(
    aten.sum,
    aten.mean,
    aten.amax,
    aten.amin,
    aten.max,
    aten.min,
    aten.var,
    aten.std,
    aten.var_mean,
    aten.std_mean,
    aten.prod,
    aten.linalg_vector_norm,
    aten.norm,
    aten.logsumexp,
    aten.any,
    aten.all,
)
def reduce(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Labelled dims that are reduced vanish; the op is noted, because it must be taken over the kept ones."""
    if len(call.tensors) > 1:
        return (
            ledger.merge(
                [(ledger.labels(t), t.shape) for t in call.tensors], call.outputs[0].ndim, call.name
            ),
        )
    dims, keepdim = _dims(call), bool(call.arguments.get("keepdim"))
    labels = ledger.labels(call.tensors[0])
    ended = touching(labels, dims)
    for array in ended:
        if not set(span(array)) <= set(dims):
            ledger.pin(array, f"{call.name} reduces a jointly labelled dim")
    kept = tuple(
        _without(array, dims, keepdim=keepdim) for array in labels if not set(span(array)) & set(dims)
    )
    if ended and len(call.outputs) == 2 and call.outputs[1].dtype == torch.int64:
        ledger.pin(ended, f"{call.name} answers with the number of a channel")
    if ended:
        ledger.site(call, (kept,) * len(call.outputs))
    return (kept,) * len(call.outputs)


@rule(aten._softmax, aten._log_softmax, aten.cumsum, aten.sort, aten.topk, aten.flip, aten.roll)
def along_dim(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Ops that run along a dim: labelled, it is pinned; the other dims pass."""
    x = call["self"]
    given = call.arguments.get("dim", call.arguments.get("dims"))
    dims = [given] if isinstance(given, int) else list(given or range(x.ndim))
    pinned = touching(ledger.labels(x), [d % x.ndim for d in dims])
    ledger.pin(pinned, f"{call.name} runs along the channels")
    rest = tuple(a for a in ledger.labels(x) if all(a is not p for p in pinned))
    return (rest,) * len(call.outputs)


@rule(aten.argmax, aten.argmin)
def arg(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Answers with the number of a channel, which a cut would change."""
    dims = _dims(call)
    labels = ledger.labels(call["self"])
    ledger.pin(touching(labels, dims), f"{call.name} answers with the number of a channel")
    rest = tuple(a for a in labels if not set(span(a)) & set(dims))
    return (tuple(_without(a, dims, keepdim=call["keepdim"]) for a in rest),)
