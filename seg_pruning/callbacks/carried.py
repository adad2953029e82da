"""Structure in and out of the checkpoints of a LightningModule that knows nothing of pruning."""

from collections.abc import Callable
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
    if isinstance(module, PrunableCheckpoints) or "on_load_checkpoint" in vars(module):
        return
    load, save = module.on_load_checkpoint, module.on_save_checkpoint

    def on_load_checkpoint(checkpoint: dict[str, Any]) -> None:
        take_structure_(checkpoint, module)
        load(checkpoint)

    def on_save_checkpoint(checkpoint: dict[str, Any]) -> None:
        save(checkpoint)
        write_structure(checkpoint, module)

    vars(module)["on_load_checkpoint"] = on_load_checkpoint
    vars(module)["on_save_checkpoint"] = on_save_checkpoint
