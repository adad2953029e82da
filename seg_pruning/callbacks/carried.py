"""Structure in and out of the checkpoints of a LightningModule that knows nothing of pruning."""

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L

from seg_pruning.surgery.checkpoints import take_structure_, write_structure
from seg_pruning.tasks import PrunableCheckpoints

Hook = Callable[[dict[str, Any]], None]


def carry_structure_(module: L.LightningModule) -> None:
    """Makes `module` write its structure into checkpoints, and take a file's before its weights are loaded.

    Lightning loads weights before any callback sees the checkpoint, and only the module's own hooks come
    earlier; so they are wrapped on the instance. A module that does it by itself (`PrunableCheckpoints`) is
    left alone, and so is one that already does it through an earlier call.
    """
    if isinstance(module, PrunableCheckpoints) or _carries(module):
        return
    # Partials, not closures: a copy of the module gets hooks of its own, and it can be pickled.
    vars(module)["on_load_checkpoint"] = partial(_load, module, module.on_load_checkpoint)
    vars(module)["on_save_checkpoint"] = partial(_save, module, module.on_save_checkpoint)


def _carries(module: L.LightningModule) -> bool:
    hook = vars(module).get("on_load_checkpoint")
    return isinstance(hook, partial) and hook.func is _load


def _load(module: L.LightningModule, own: Hook, checkpoint: dict[str, Any]) -> None:
    take_structure_(checkpoint, module)
    own(checkpoint)


def _save(module: L.LightningModule, own: Hook, checkpoint: dict[str, Any]) -> None:
    own(checkpoint)
    write_structure(checkpoint, module)
