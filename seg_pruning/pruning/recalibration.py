"""Statistics of BatchNorm estimated anew: those of before a cut are of other inputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from seg_pruning.profiling.inference import as_written, device_of, evaluating, keeping_rng
from seg_pruning.surgery.inputs import Inputs


def tracking_norms(model: nn.Module) -> frozenset[str]:
    """Names of the BatchNorm layers that keep running statistics."""
    return frozenset(
        name
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    )


def training_norms(model: nn.Module) -> frozenset[str]:
    """Those of `tracking_norms` that are in train mode."""
    return frozenset(name for name in tracking_norms(model) if model.get_submodule(name).training)


@torch.no_grad()
def recalibrate_(
    model: nn.Module,
    norms: Collection[str],
    calls: Iterable[Inputs],
    *,
    context: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> None:
    """Sets running statistics to the average over some batches, each batch with the same weight.

    Everything else is in eval mode meanwhile, dropout included; random state, modes and momentum are as
    before afterwards. A layer that none of the calls reaches keeps its statistics.

    Args:
        model: the network.
        norms: names of the layers; others, such as those that the user froze, are left alone.
        calls: what the network is called with.
        context: entered around each call, such as that of mixed precision.
    """
    layers = [layer for name in norms if isinstance(layer := model.get_submodule(name), _BatchNorm)]
    with evaluating(model), as_written(), _averaging(layers):
        for inputs in calls:
            device = device_of(model, inputs)
            with keeping_rng(device), context():
                inputs.to(device=device).call(model)


@contextmanager
def _averaging(layers: Sequence[_BatchNorm]) -> Iterator[None]:
    """Inside, running statistics are taken anew, as the average over all that passes a layer.

    Afterwards the momentum is as before, and so are the statistics of layers that nothing passed.
    """
    momenta = [layer.momentum for layer in layers]
    known = [{name: buffer.clone() for name, buffer in layer.named_buffers()} for layer in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # torch's word for the average over all batches since the reset
            layer.train()
        yield
    finally:
        for layer, momentum, before in zip(layers, momenta, known, strict=True):
            layer.momentum = momentum
            _keep_unless_reached_(layer, before)


def _keep_unless_reached_(layer: _BatchNorm, before: dict[str, torch.Tensor]) -> None:
    if layer.num_batches_tracked is not None and not int(layer.num_batches_tracked):
        for name, buffer in layer.named_buffers():
            buffer.copy_(before[name])
