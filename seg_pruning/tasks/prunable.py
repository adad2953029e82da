"""Checkpoints of pruned networks for any LightningModule."""

from typing import TYPE_CHECKING, Any

from typing_extensions import override

from seg_pruning.surgery.checkpoints import take_structure_, write_structure

if TYPE_CHECKING:
    from lightning import LightningModule as _Base
else:
    # Beside a module of `pytorch_lightning` a base of `lightning` would hide what that module defines.
    _Base = object


class PrunableCheckpoints(_Base):
    """Mixin: checkpoints carry the structure, and loading one gives the module its widths, denser or sparser.

    With it `load_from_checkpoint` works for a pruned checkpoint in a fresh process. Name it first, and call
    `super()` in hooks of your own: ``class MyTask(PrunableCheckpoints, LightningModule)``,
    the latter of `lightning` or of `pytorch_lightning`.
    """

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the widths of the checkpoint, before Lightning loads its weights."""
        take_structure_(checkpoint, self)
        super().on_load_checkpoint(checkpoint)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Writes what has been removed into the checkpoint."""
        super().on_save_checkpoint(checkpoint)
        write_structure(checkpoint, self)
