"""Back to an early state after each cut: iterative magnitude pruning with rewinding.

Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis"
(https://arxiv.org/abs/1912.05671), for weights; Renda et al. 2020, "Comparing Rewinding and Fine-tuning in
Neural Network Pruning" (https://arxiv.org/abs/2003.02389), for the learning rate.
"""

from __future__ import annotations

import copy
from typing import TypedDict

import lightning as L
import torch
from torch import Tensor, nn

from seg_pruning.callbacks.options import Rewind
from seg_pruning.surgery.cut import Cut
from seg_pruning.surgery.passes import tensors_of


class Early(TypedDict):
    """An early state, in plain types and tensors on the CPU.

    `tensors` holds parameters and buffers by name, none where only the learning rate goes back; `rates` the
    learning rate of each group of each optimizer; `schedulers` the state of each scheduler.
    """

    tensors: dict[str, Tensor]
    rates: list[list[float]]
    schedulers: list[dict[str, object]]


def early_state(trainer: L.Trainer, module: nn.Module, rewind: Rewind) -> Early:
    """What `rewind_` goes back to, as it is now."""
    held = tensors_of(module) if rewind == "weights" else {}
    return {
        "tensors": {name: tensor.detach().to("cpu", copy=True) for name, tensor in held.items()},
        "rates": [[float(group["lr"]) for group in opt.param_groups] for opt in trainer.optimizers],
        "schedulers": [
            copy.deepcopy(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs
        ],
    }


def cut_early(early: Early, cut: Cut) -> Early:
    """The early state of the channels that `cut` keeps."""
    gone = tuple(f"{path}." for path in cut.dropped)
    kept = {
        name: cut.tensor(name, tensor)
        for name, tensor in early["tensors"].items()
        if not name.startswith(gone)
    }
    return {**early, "tensors": kept}


@torch.no_grad()
def rewind_(trainer: L.Trainer, module: nn.Module, early: Early) -> None:
    """Goes back to `early`: the learning rate and its schedulers, and weights where it holds them.

    Moments of the optimizer are of later weights: they start anew where weights go back, and stay otherwise.
    """
    held = tensors_of(module)
    for name, value in early["tensors"].items():
        held[name].copy_(value)
    if early["tensors"]:
        for optimizer in trainer.optimizers:
            optimizer.state.clear()
    for optimizer, rates in zip(trainer.optimizers, early["rates"], strict=True):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
    for config, state in zip(trainer.lr_scheduler_configs, early["schedulers"], strict=True):
        config.scheduler.load_state_dict(copy.deepcopy(state))
