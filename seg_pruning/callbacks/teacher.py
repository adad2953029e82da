"""The dense network as a teacher: a frozen copy that belongs to no module and no optimizer."""

from __future__ import annotations

import copy
from collections.abc import Collection
from functools import partial
from pathlib import Path

import lightning as L
import torch

from seg_pruning.surgery.checkpoints import take_structure_
from seg_pruning.surgery.errors import PruningError


def frozen_copy(module: L.LightningModule, watchers: Collection[object] = ()) -> L.LightningModule:
    """A copy of `module` in eval mode, without gradients, on its device.

    Args:
        module: the module; its trainer is shared, not copied.
        watchers: objects whose hooks on `module` are for training and are left out.
    """
    trainer = vars(module).get("_trainer")
    hooks = [
        held
        for part in module.modules()
        for held in (part._forward_hooks, part._forward_pre_hooks)
    ]  # fmt: skip
    owners = [_owner(hook) for held in hooks for hook in held.values()]
    shared = [trainer, *watchers, *(owner for owner in owners if owner is not None)]
    found = copy.deepcopy(module, {id(each): each for each in shared if each is not None})
    for part in found.modules():
        for held in (part._forward_hooks, part._forward_pre_hooks):
            for key in [key for key, hook in held.items() if _owner(hook) in watchers]:
                del held[key]
    return found.eval().requires_grad_(False)


def _owner(hook: object) -> object:
    """The object whose method a hook is; None for a plain function."""
    return getattr(hook.func if isinstance(hook, partial) else hook, "__self__", None)


def read_teacher(
    module: L.LightningModule, path: Path, watchers: Collection[object] = ()
) -> L.LightningModule:
    """A frozen copy of `module` with the weights and widths of a checkpoint.

    Raises:
        PruningError: the file cannot be read, or is of another network.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        state = checkpoint["state_dict"]
    except Exception as error:
        raise PruningError(
            f"the teacher cannot be read from {path} ({type(error).__name__}: {error}): put the checkpoint "
            "of the dense network there, or give Distillation(teacher=...)"
        ) from error
    teacher = frozen_copy(module, watchers)
    take_structure_(checkpoint, teacher)
    teacher.load_state_dict(state)
    return teacher
