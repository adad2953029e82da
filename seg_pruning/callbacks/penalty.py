"""The L1 penalty on the scales of BatchNorm, as a subgradient.

Network Slimming, Liu et al. 2017 (https://arxiv.org/abs/1708.06519).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import lightning as L
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from seg_pruning.packages import twins
from seg_pruning.surgery.graph import ChannelGraph


def penalised(model: nn.Module, graph: ChannelGraph, whole: Collection[str]) -> dict[nn.Parameter, Tensor]:
    """The scales of each BatchNorm that belong to channels which may leave.

    Args:
        model: the network of `graph`.
        graph: the groups.
        whole: names of groups that keep their width.

    Returns:
        For each scale a bool tensor of its shape.
    """
    scales = {
        f"{path}.weight" if path else "weight": module.weight
        for path, module in model.named_modules()
        if isinstance(module, _BatchNorm) and isinstance(module.weight, nn.Parameter)
    }
    found: dict[nn.Parameter, Tensor] = {}
    for group in graph.prunable:
        for member in group.members if group.name not in whole else ():
            if member.tensor in scales:
                weight = scales[member.tensor]
                mine = (member.units.reshape(-1) >= 0).to(weight.device)
                found[weight] = found.get(weight, torch.zeros_like(mine)) | mine
    return found


@torch.no_grad()
def add_penalty_(optimizer: Optimizer, scales: Mapping[nn.Parameter, Tensor], strength: float) -> None:
    """Adds `strength` times the sign of each scale to its gradient; frozen ones have none and stay.

    Args:
        optimizer: whose parameters are meant.
        scales: which elements of them.
        strength: of the penalty, times the scale of the gradients.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter in scales and parameter.grad is not None:
                parameter.grad.add_(parameter.sign() * scales[parameter], alpha=strength)


def gradient_scale(trainer: L.Trainer, optimizer: Optimizer) -> float:
    """What gradients are multiplied by as an optimizer step begins.

    1, but for fused optimizers under a `GradScaler`: those divide by it themselves, inside their step.
    """
    plugin = trainer.precision_plugin
    if not isinstance(plugin, twins(MixedPrecision)) or plugin.scaler is None:
        return 1.0
    return plugin.scaler.get_scale() if getattr(optimizer, "_step_supports_amp_scaling", False) else 1.0
