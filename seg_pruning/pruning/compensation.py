"""What the removed channels said is said by the kept ones: least squares, without training.

He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks"
(https://arxiv.org/abs/1707.06168), fits the next layer's weights to what it put out before; Chee et al. 2022,
"Model Preserving Compression for Neural Networks" (https://arxiv.org/abs/2108.00065), writes the removed
channels as combinations of the kept ones, as here.

A layer that reads channels x, of which x_R leave and x_K stay, puts out W_K x_K + W_R x_R. Over some samples
the removed ones are nearly an affine function of the kept ones, x_R = A x_K + c, and

    W_K <- W_K + W_R A,    bias <- bias + W_R c

answers nearly as before; the same A serves every position of a kernel. Where a layer has no bias, what c
shifts is left to the norm that follows, whose statistics are to be estimated anew.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from seg_pruning.profiling.inference import call_once
from seg_pruning.surgery.cut import Cut
from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.untouched import untouched

RIDGE = 1e-2
"""What is added to the diagonal of the kept channels' covariance, as a fraction of its mean."""

Layer = _ConvNd | nn.Linear


@dataclass(frozen=True)
class _Reader:
    """A layer that loses channels which it reads.

    Attributes:
        layer: the module.
        kept: which of the channels that it reads stay.
    """

    layer: Layer
    kept: Tensor


def compensation(model: nn.Module, cut: Cut, calls: Iterable[Inputs]) -> dict[str, Tensor]:
    """What to add to the weights of a network that is cut, in its dense shapes.

    Read by calls to the network as it is before the cut, in eval mode. Convolutions without groups and linear
    layers are compensated, where their weight may be trained and no other layer uses it.

    Args:
        model: the network before the cut; it stays as it is.
        cut: what is going to leave.
        calls: what it is called with.

    Returns:
        Changes of parameters by name; empty where nothing can be compensated.
    """
    readers = dict(_readers(model, cut))
    found: dict[str, Tensor] = {}
    with untouched(model), _watching(readers) as moments:
        for inputs in calls:
            call_once(model, inputs, nullcontext())
    for name, moment in moments.items():
        if moment.isfinite().all() and moment[-1, -1] > 0:
            found |= _changes(name, readers[name], moment)
    return found


@torch.no_grad()
def compensate_(model: nn.Module, cut: Cut, changes: Mapping[str, Tensor]) -> None:
    """Adds what `compensation` found to the parameters of `model`, which has been cut."""
    for name, change in changes.items():
        parameter = model.get_parameter(name)
        parameter.add_(cut.tensor(name, change).to(parameter))


def _readers(model: nn.Module, cut: Cut) -> Iterator[tuple[str, _Reader]]:
    users = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    for name, module in model.named_modules():
        mask = cut.masks.get(f"{name}.weight" if name else "weight")
        if mask is None or not isinstance(module, Layer) or getattr(module, "groups", 1) != 1:
            continue
        weight = module.weight
        kept = mask.movedim(_input_dim(module), 0).flatten(1).any(1)
        if weight.requires_grad and users[id(weight)] == 1 and not kept.all():
            yield name, _Reader(module, kept)


def _input_dim(layer: Layer) -> int:
    return 0 if isinstance(layer, _ConvTransposeNd) else 1


def _overlap(layer: Layer) -> int:
    """One of how many positions of its kernel an output place gets: a stride spreads transposed layers."""
    return math.prod(layer.stride) if isinstance(layer, _ConvTransposeNd) else 1


@contextmanager
def _watching(readers: Mapping[str, _Reader]) -> Iterator[dict[str, Tensor]]:
    """Gathers, for each layer that is called, the second moments of what it reads and of a 1 beside it."""
    moments: dict[str, Tensor] = {}

    def add(name: str, layer: Layer, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        """A hook: adds what one call reads."""
        x = _rows(layer, args[0] if args else kwargs["input"])
        moment = (x.T @ x).to("cpu", torch.float64)  # not every accelerator has float64
        moments[name] = moments[name] + moment if name in moments else moment

    handles = [
        reader.layer.register_forward_pre_hook(partial(add, name), with_kwargs=True)
        for name, reader in readers.items()
    ]
    try:
        yield moments
    finally:
        for handle in handles:
            handle.remove()


def _rows(layer: Layer, read: Tensor) -> Tensor:
    """What a layer reads as rows of channels and a 1, `(positions, channels + 1)`, in float32."""
    channels = -1 if isinstance(layer, nn.Linear) else 1 - layer.weight.dim()
    x = read.detach().float().movedim(channels, -1)
    x = x.reshape(-1, x.shape[-1])
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)


def _changes(name: str, reader: _Reader, moment: Tensor) -> dict[str, Tensor]:
    """What to add to weight and bias of one layer."""
    layer, kept = reader.layer, reader.kept.cpu()
    mean = moment[:-1, -1] / moment[-1, -1]
    covariance = moment[:-1, :-1] / moment[-1, -1] - mean.outer(mean)
    inside = covariance[kept][:, kept]
    inside = inside + torch.eye(len(inside)) * (RIDGE * inside.diagonal().mean() + torch.finfo().tiny)
    combined = torch.linalg.solve(inside, covariance[kept][:, ~kept])  # (kept, removed)
    dim = _input_dim(layer)
    weight = layer.weight.detach().cpu().double().movedim(dim, 0)
    change = torch.zeros_like(weight)
    change[kept] = torch.tensordot(combined, weight[~kept], dims=1)
    prefix = f"{name}." if name else ""
    found = {f"{prefix}weight": change.movedim(0, dim)}
    if layer.bias is not None and layer.bias.requires_grad:
        rest = mean[~kept] - combined.T @ mean[kept]
        shift = torch.tensordot(rest, weight[~kept], dims=1)  # (out, *kernel)
        found[f"{prefix}bias"] = shift.reshape(len(shift), -1).sum(1) / _overlap(layer)
    return found
