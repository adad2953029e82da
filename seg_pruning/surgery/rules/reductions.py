"""Sums, means, extremes: a labelled dim that is reduced is reduced over what is kept."""

from collections.abc import Sequence

import torch

from seg_pruning.surgery.entries import Call
from seg_pruning.surgery.labels import LabelArray, LabelSet, span, touching
from seg_pruning.surgery.ledger import Ledger
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
    kept, ended = [], []
    for array in ledger.labels(call.tensors[0]):
        over = [d for d in span(array) if d in dims]
        if over and set(over) != set(span(array)) and _mixed_up(ledger, call, array, over):
            array, over = ledger.tie_along(array, over), []
        if over:
            ended.append(array)
            if len(call.outputs) == 2 and call.outputs[1].dtype == torch.int64:
                ledger.number(call.outputs[1], array)
        else:
            kept.append(_without(array, dims, keepdim=keepdim))
    labels = ledger.distinct(kept)
    if ended:
        statistic = call.func.overloadpacket is not aten.sum
        ledger.site(call, (labels,) * len(call.outputs), over=ended if statistic else ())
    return (labels,) * len(call.outputs)


def _mixed_up(ledger: Ledger, call: Call, array: LabelArray, over: list[int]) -> bool:
    """Whether `array` loses channels along a dim that is not reduced: what is mixed has to be alike."""
    return ledger.narrow(array, over, f"{call.name} runs over blocks of equal width") not in over


@rule(aten._softmax, aten._log_softmax, aten._safe_softmax)
def softmax(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """A distribution over the channels that are kept, as a norm is a statistic of them."""
    x = call["self"]
    labels, over = distribution(ledger, ledger.labels(x), call["dim"] % max(x.ndim, 1))
    if over:
        ledger.site(call, (labels,), over=over)
    return (labels,)


def distribution(ledger: Ledger, labels: LabelSet, dim: int) -> tuple[LabelSet, LabelSet]:
    """The labels of a softmax along `dim` of what carries `labels`, and those of them that it is taken over.

    Where each line along `dim` keeps as many channels as every other, it is a distribution of its own. Where
    channels leave along another dim, or it is open along which, what is weighed against each other is alike.
    """
    over = tuple(array for array in labels if dim in span(array) and ledger.narrowing(array) == dim)
    alike = (
        ledger.tie_along(array, [dim]) if dim in span(array) else array
        for array in labels
        if all(array is not other for other in over)
    )
    return ledger.distinct([*alike, *over]), over


@rule(aten.cumsum, aten.sort, aten.topk, aten.flip, aten.roll)
def along_dim(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Ops that run along a dim: an axis labelled by itself is pinned, blocks leave alike."""
    x = call["self"]
    given = call.arguments.get("dim", call.arguments.get("dims"))
    dims = [given] if isinstance(given, int) else list(given or range(x.ndim))
    reason = f"{call.name} runs along the channels"
    return (ledger.unmixed(ledger.labels(x), [d % x.ndim for d in dims], reason),) * len(call.outputs)


@rule(aten.argmax, aten.argmin)
def arg(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Answers with the number of a channel, which a cut would change."""
    dims = _dims(call)
    labels = ledger.labels(call["self"])
    ledger.pin(touching(labels, dims), f"{call.name} answers with the number of a channel")
    rest = tuple(a for a in labels if not set(span(a)) & set(dims))
    return (tuple(_without(a, dims, keepdim=call["keepdim"]) for a in rest),)
