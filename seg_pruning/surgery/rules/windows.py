"""Windows, samples and spectra: dims that are moved over are pinned, channels pass."""

from collections.abc import Iterable

import numpy as np
import torch

from seg_pruning.surgery.entries import Call
from seg_pruning.surgery.labels import LabelSet, along, span, touching
from seg_pruning.surgery.ledger import Ledger
from seg_pruning.surgery.rules.registry import rule

aten = torch.ops.aten


def passing(ledger: Ledger, labels: LabelSet, dims: Iterable[int], why: str) -> LabelSet:
    """The arrays that span none of `dims`; the others are pinned."""
    wanted = set(dims)
    ledger.pin(touching(labels, wanted), why)
    return tuple(array for array in labels if not wanted & set(span(array)))


def _over_last(ledger: Ledger, call: Call, count: int) -> tuple[LabelSet, ...]:
    x = call.tensors[0]
    rest = passing(ledger, ledger.labels(x), range(x.ndim - count, x.ndim), f"{call.name} moves over it")
    for other in call.tensors[1:]:
        ledger.pin(ledger.labels(other), f"{call.name} reads it as places")
    return tuple(rest if out.ndim == x.ndim else () for out in call.outputs)


@rule(aten._upsample_nearest_exact1d)
def over_last(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """`(..., C, W)`."""
    return _over_last(ledger, call, 1)


@rule(aten._upsample_lanczos2d_aa, aten.fractional_max_pool2d)
def over_last_two(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """`(..., C, H, W)`."""
    return _over_last(ledger, call, 2)


@rule(aten._upsample_nearest_exact3d, aten.fractional_max_pool3d)
def over_last_three(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """`(..., C, D, H, W)`."""
    return _over_last(ledger, call, 3)


@rule(aten.max_unpool3d)
def max_unpool(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Values and the places that they came from leave together."""
    x, indices = call["self"], call["indices"]
    both = []
    for t in (x, indices):
        places = range(t.ndim - 3, t.ndim)
        both.append((passing(ledger, ledger.labels(t), places, f"{call.name} moves over it"), t.shape))
    return (ledger.merge(both, x.ndim, call.name),)


@rule(aten.grid_sampler_2d, aten.grid_sampler_3d)
def grid_sampler(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Each channel is sampled at the same places."""
    x, grid = call["input"], call["grid"]
    ledger.pin(ledger.labels(grid), f"{call.name} reads it as places")
    others = [d for d in range(x.ndim) if d != 1]
    return (passing(ledger, ledger.labels(x), others, f"{call.name} samples it"),)


@rule(aten.unfold)
def unfold(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """`x.unfold(dim, size, step)`: the dim becomes windows, and a last dim holds what is in each."""
    x = call["self"]
    if not x.ndim:
        return ((),)
    rest = passing(ledger, ledger.labels(x), [call["dimension"] % x.ndim], f"{call.name} slides over it")
    return (tuple(array[..., None] for array in rest),)


@rule(aten.im2col)
def im2col(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """`(N, C, H, W)` to `(N, C * kernel, places)`: one row for each channel and place of the kernel."""
    x = call["self"]
    rest = passing(ledger, ledger.labels(x), [x.ndim - 2, x.ndim - 1], f"{call.name} slides over it")
    channel, kernel = x.ndim - 3, int(np.prod(call["kernel_size"]))
    wide = [a.repeat(kernel, axis=channel) if channel in span(a) else a for a in rest]
    return (tuple(a[..., 0] for a in wide),)


@rule(aten.col2im)
def col2im(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """`(N, C * kernel, places)` to `(N, C, H, W)`: the rows that become one channel leave together."""
    x = call["self"]
    channel, kernel = x.ndim - 2, int(np.prod(call["kernel_size"]))
    others = [d for d in range(x.ndim) if d != channel]
    passing(ledger, ledger.labels(x), others, f"{call.name} lays it over the image")
    rows = ledger.vector(x, channel)
    if rows is None:
        return ((),)
    units = rows.reshape(-1, kernel)
    ledger.tie(units, units[:, :1])
    return ((along(units[:, 0], channel, call.outputs[0].ndim),),)


@rule(aten._fft_c2c, aten._fft_r2c, aten._fft_c2r)
def fft(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """A spectrum over some dims; each index of the others by itself."""
    x = call["self"]
    dims = [d % x.ndim for d in call["dim"]]
    return (passing(ledger, ledger.labels(x), dims, f"{call.name} runs along it"),)
