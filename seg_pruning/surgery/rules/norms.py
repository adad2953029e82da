"""Normalisations: affine parameters leave with their channels; statistics over channels are noted."""

import torch
from torch import Tensor

from seg_pruning.surgery.entries import Call
from seg_pruning.surgery.labels import LabelArray, LabelSet, span, touching
from seg_pruning.surgery.ledger import Ledger
from seg_pruning.surgery.rules.branching import branch
from seg_pruning.surgery.rules.registry import rule

aten = torch.ops.aten


def _tie_affine(ledger: Ledger, call: Call, channels: LabelArray | None, names: tuple[str, ...]) -> None:
    for name in names:
        tensor: Tensor | None = call.arguments.get(name)
        if tensor is not None:
            ledger.meet(channels, ledger.vector(tensor, 0), f"{call.name} normalises channels that are fixed")


@rule(
    aten.native_batch_norm,
    aten._native_batch_norm_legit_no_training,
    aten._native_batch_norm_legit,
    aten._batch_norm_no_update,
    aten._batch_norm_with_update,
    aten.cudnn_batch_norm,
)
def batch_norm(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Each channel by itself; over the batch's own statistics it mixes whatever else is labelled."""
    x = call.tensors[0]
    channels = ledger.vector(x, 1)
    _tie_affine(ledger, call, channels, ("weight", "bias", "running_mean", "running_var"))
    labels = ledger.labels(x)
    if touching(labels, [d for d in range(x.ndim) if d != 1]):
        ledger.site(call, (labels, (), ()))
    return (labels,) + ((),) * (len(call.outputs) - 1)


@rule(aten.native_group_norm)
def group_norm(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Each group keeps as many channels as every other, and is normalised over those; or it leaves."""
    x, groups = call["input"], call["group"]
    over = [d for d in range(x.ndim) if d != 1]
    ledger.set(x, ledger.unmixed(ledger.labels(x), over, f"{call.name} normalises over it"))
    channels = ledger.vector(x, 1)
    _tie_affine(ledger, call, channels, ("weight", "bias"))
    if channels is None:
        return ((),) * len(call.outputs)
    dense = len(channels) if call["weight"] is None else ledger.dense_shape(call["weight"])[0]
    if groups == dense:
        ledger.fit(channels, {0: ledger.size(call, groups)}, 0)
    else:
        why = f"{call.name} has {groups} groups of equal width"
        branch(ledger, [channels.reshape(groups, -1)], ledger.size(call, groups), why)
    labels = ledger.labels(x)
    ledger.site(call, (labels, (), ()), over=[] if groups == dense else [channels])
    return (labels,) + ((),) * (len(call.outputs) - 1)


@rule(aten.native_layer_norm)
def layer_norm(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Normalised over the indices that are kept; `normalized_shape` follows."""
    x, shape = call["input"], call["normalized_shape"]
    first = x.ndim - len(shape)
    affine = [t for t in (call["weight"], call["bias"]) if t is not None]
    operands = [(ledger.labels(t), t.shape) for t in (x, *affine)]
    labels, mixed = [], []
    for array in ledger.merge(operands, x.ndim, call.name):
        over = [d for d in span(array) if d >= first]
        dim = ledger.narrow(array, over, f"{call.name} runs over blocks of equal width") if over else None
        if dim is not None and dim < first:
            array = ledger.tie_along(array, over)
        elif dim is not None:
            place = dim - first
            size = ledger.size(call, x.shape[dim], at=slice(place, place + 1))
            ledger.fit(array, {dim: size}, dim)
            mixed.append(array)
        labels.append(array)
    if mixed:
        ledger.site(call, (tuple(labels), (), ()), over=mixed)
    return (tuple(labels),) + ((),) * (len(call.outputs) - 1)


@rule(aten._weight_norm_interface)
def weight_norm(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """`v * g / norm(v)`, the norm over all dims but one."""
    v, g = call["v"], call["g"]
    merged = ledger.merge([(ledger.labels(v), v.shape), (ledger.labels(g), g.shape)], v.ndim, call.name)
    ledger.site(call, (merged, ledger.labels(g)))  # a row of zeros has no direction
    return (merged, ledger.labels(g))
