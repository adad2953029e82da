"""Normalisations: affine parameters leave with their channels; statistics over channels are noted."""

import torch
from torch import Tensor

from seg_pruning.surgery.labels import LabelArray, LabelSet, span, touching
from seg_pruning.surgery.ledger import Call, Ledger
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
    """Each group keeps as many channels as every other, and is normalised over those it keeps."""
    x, groups = call["input"], call["group"]
    channels = ledger.vector(x, 1)
    _tie_affine(ledger, call, channels, ("weight", "bias"))
    others = tuple(a for a in ledger.labels(x) if span(a) != (1,))
    ledger.pin(others, f"{call.name} normalises over it")
    if channels is None:
        return ((),) * len(call.outputs)
    dense = len(channels) if call["weight"] is None else ledger.dense_shape(call["weight"])[0]
    if groups == dense:
        ledger.demand(call, groups, channels)
    else:
        ledger.equal_rows(channels.reshape(groups, -1), f"{call.name} has {groups} groups of equal width")
    labels = ledger.labels(x)
    ledger.site(call, (labels, (), ()))
    return (labels,) + ((),) * (len(call.outputs) - 1)


@rule(aten.native_layer_norm)
def layer_norm(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Normalised over the indices that are kept; `normalized_shape` follows."""
    x, shape = call["input"], call["normalized_shape"]
    first = x.ndim - len(shape)
    for name in ("weight", "bias"):
        tensor: Tensor | None = call[name]
        if tensor is not None:
            normalised = tuple(
                a.reshape(a.shape[first:]) for a in touching(ledger.labels(x), range(first, x.ndim))
            )
            ledger.merge(
                [(normalised, tensor.shape), (ledger.labels(tensor), tensor.shape)], tensor.ndim, call.name
            )
    mixed = touching(ledger.labels(x), range(first, x.ndim))
    for array in mixed:
        dims = span(array)
        if len(dims) > 1:
            ledger.pin(array, f"{call.name} normalises over jointly labelled dims")
        else:
            place = dims[0] - first
            ledger.demand(call, x.shape[dims[0]], array.reshape(-1), at=slice(place, place + 1))
    if mixed:
        ledger.site(call, (ledger.labels(x), (), ()))
    return (ledger.labels(x),) + ((),) * (len(call.outputs) - 1)


@rule(aten._weight_norm_interface)
def weight_norm(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """`v * g / norm(v)`, the norm over all dims but one."""
    v, g = call["v"], call["g"]
    merged = ledger.merge([(ledger.labels(v), v.shape), (ledger.labels(g), g.shape)], v.ndim, call.name)
    ledger.site(call, (merged, ledger.labels(g)))  # a row of zeros has no direction
    return (merged, ledger.labels(g))
