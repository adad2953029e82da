"""Pooling, interpolation, spatial padding: channel by channel over the last dims."""

import torch

from seg_pruning.surgery.entries import Call
from seg_pruning.surgery.labels import LabelSet, along
from seg_pruning.surgery.ledger import Ledger
from seg_pruning.surgery.rules.registry import rule

aten = torch.ops.aten

_LAST_ONE = (aten.upsample_nearest1d, aten.upsample_linear1d, aten.reflection_pad1d, aten.replication_pad1d)
_LAST_TWO = (
    aten.max_pool2d_with_indices,
    aten.max_unpool2d,
    aten.avg_pool2d,
    aten._adaptive_avg_pool2d,
    aten.adaptive_max_pool2d,
    aten.upsample_nearest2d,
    aten._upsample_nearest_exact2d,
    aten.upsample_bilinear2d,
    aten._upsample_bilinear2d_aa,
    aten.upsample_bicubic2d,
    aten._upsample_bicubic2d_aa,
    aten.reflection_pad2d,
    aten.replication_pad2d,
)
_LAST_THREE = (
    aten.max_pool3d_with_indices,
    aten.avg_pool3d,
    aten._adaptive_avg_pool3d,
    aten.adaptive_max_pool3d,
    aten.upsample_nearest3d,
    aten.upsample_trilinear3d,
    aten.replication_pad3d,
    aten.reflection_pad3d,
)


def _spatial(ledger: Ledger, call: Call, count: int) -> tuple[LabelSet, ...]:
    x = call.tensors[0]
    rest = ledger.unmixed(ledger.labels(x), range(x.ndim - count, x.ndim), f"{call.name} moves over it")
    for other in call.tensors[1:]:
        rest = ledger.merge([(rest, x.shape), (ledger.labels(other), other.shape)], x.ndim, call.name)
    return (rest,) * len(call.outputs)


@rule(*_LAST_ONE)
def spatial1d(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """`(..., C, W)`."""
    return _spatial(ledger, call, 1)


@rule(*_LAST_TWO)
def spatial2d(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """`(..., C, H, W)`."""
    return _spatial(ledger, call, 2)


@rule(*_LAST_THREE)
def spatial3d(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """`(..., C, D, H, W)`."""
    return _spatial(ledger, call, 3)


@rule(aten.pixel_shuffle)
def pixel_shuffle(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """The `r * r` channels that become one output channel leave together."""
    x, r = call["self"], call["upscale_factor"]
    moved = [d for d in range(x.ndim) if d != x.ndim - 3]
    ledger.set(x, ledger.unmixed(ledger.labels(x), moved, f"{call.name} moves over it"))
    vector = ledger.vector(x, x.ndim - 3)
    if vector is None:
        return ((),)
    units = vector.reshape(-1, r * r)
    ledger.tie(units, units[:, :1])
    return ((along(units[:, 0], x.ndim - 3, x.ndim),),)


@rule(aten.pixel_unshuffle)
def pixel_unshuffle(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Each input channel becomes `r * r` channels that leave together."""
    x, r = call["self"], call["downscale_factor"]
    moved = [d for d in range(x.ndim) if d != x.ndim - 3]
    ledger.set(x, ledger.unmixed(ledger.labels(x), moved, f"{call.name} moves over it"))
    vector = ledger.vector(x, x.ndim - 3)
    if vector is None:
        return ((),)
    return ((along(vector.repeat(r * r), x.ndim - 3, x.ndim),),)
