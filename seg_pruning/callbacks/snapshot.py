"""The state of a training just before a cut, to come back to."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn

from seg_pruning.callbacks import averages
from seg_pruning.packages import of_kind
from seg_pruning.surgery.checkpoints import take_structure_, write_structure
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import map_tensors

Snapshot = dict[str, Any]


def take(trainer: L.Trainer, module: L.LightningModule, own: dict[str, Any]) -> Snapshot:
    """Weights, structure, optimizers, schedulers and what watches a metric; copies, on the CPU.

    Args:
        trainer: the training.
        module: its module.
        own: state of the caller, plain types and tensors.
    """
    found: Snapshot = {
        # All of it: a module's own `state_dict` may leave out what is cut, such as a frozen encoder.
        "state_dict": dict(nn.Module.state_dict(module)),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "monitors": {monitor.state_key: monitor.state_dict() for monitor in _monitors(trainer)},
        "averages": averages.take(trainer),
        "own": own,
    }
    write_structure(found, module)
    return copy.deepcopy(map_tensors(found, lambda tensor: tensor.detach().to("cpu", copy=True)))


def restore_(trainer: L.Trainer, module: L.LightningModule, snapshot: Snapshot) -> dict[str, Any]:
    """Brings the training back to a snapshot, but for the epochs and steps that it has counted.

    Parameters and optimizers stay the objects that they are.

    Returns:
        The state of the caller.
    """
    held = map_tensors(copy.deepcopy(snapshot), lambda tensor: tensor.clone())  # it may be needed again
    take_structure_(held, module)
    _forget_graphs_(module)
    nn.Module.load_state_dict(module, held["state_dict"])
    averages.restore_(trainer, held["averages"])
    for optimizer, state in zip(trainer.optimizers, held["optimizers"], strict=True):
        optimizer.load_state_dict(_with_news(state, optimizer.state_dict()))
    for config, state in zip(trainer.lr_scheduler_configs, held["schedulers"], strict=True):
        if state.keys() == config.scheduler.state_dict().keys():  # another since where averaging swaps them
            config.scheduler.load_state_dict(state)
    for monitor in _monitors(trainer):
        if monitor.state_key in held["monitors"]:
            monitor.load_state_dict(held["monitors"][monitor.state_key])
    torch.compiler.reset()
    own: dict[str, Any] = held["own"]
    return own


def _with_news(held: Snapshot, present: Snapshot) -> Snapshot:
    """The state of an optimizer, and what its groups have been given since: options, and groups of layers.

    Fine-tuning adds layers as it thaws them, averaging adds rates; neither would find its own again. The
    moments of such layers start anew: they are of other widths.
    """
    pairs = zip(held["param_groups"], present["param_groups"], strict=False)
    known = [{**now, **then} for then, now in pairs]
    return {**held, "param_groups": [*known, *present["param_groups"][len(known) :]]}


def read(path: Path) -> Snapshot:
    """The snapshot in a file.

    Raises:
        PruningError: there is none, or it cannot be read.
    """
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise PruningError(
            f"training goes on after a cut that is not judged yet, but the network of before it cannot be "
            f"read from {path} ({type(error).__name__}: {error}): put the file there, or go on from a "
            "checkpoint of before that cut"
        ) from error


def _monitors(trainer: L.Trainer) -> list[ModelCheckpoint | EarlyStopping]:
    savers = of_kind(trainer.checkpoint_callbacks, ModelCheckpoint)
    return [*savers, *of_kind(trainer.early_stopping_callbacks, EarlyStopping)]


def _forget_graphs_(module: nn.Module) -> None:
    """A loss still alive keeps nodes of old shapes; torch makes new ones after a change of dtype."""
    for parameter in module.parameters():
        data: Tensor = parameter.data
        parameter.grad = None
        other = torch.float32 if data.dtype == torch.float16 else torch.float16
        parameter.data = torch.empty(0, dtype=other, device=data.device)
        parameter.data = data
