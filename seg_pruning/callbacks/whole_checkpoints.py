"""Checkpoints that a killed process leaves whole: the old one or the new one, never half of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import CheckpointIO
from typing_extensions import override

from seg_pruning.surgery.atomic import whole_file

# Of either package, and only where it is in use: nothing is imported for the comparison.
_PLAIN = ("lightning.fabric.plugins.io.torch_io", "lightning_fabric.plugins.io.torch_io")


def write_whole_(trainer: L.Trainer) -> None:
    """Makes a trainer put local checkpoints in place whole; a project's own way to write is left alone."""
    plain = [sys.modules[name].TorchCheckpointIO for name in _PLAIN if name in sys.modules]
    used = trainer.strategy.checkpoint_io
    if type(used) in plain:
        trainer.strategy.checkpoint_io = WholeCheckpoints(used)


class WholeCheckpoints(CheckpointIO):
    """Writes beside the old checkpoint, and puts the new one in its place afterwards.

    Lightning writes to the folder of temporary files and moves the file from there. Where the two are on
    different file systems the move copies onto the old checkpoint, and who is killed meanwhile has none.

    Args:
        inner: what reads and removes, and writes where paths are not local.
    """

    def __init__(self, inner: CheckpointIO) -> None:
        self._inner = inner
        self._newest: Path | None = None

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Writes a checkpoint; what a process that was killed left of the same one goes."""
        if storage_options is not None or "://" in str(path):
            self._inner.save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target, alone=True) as draft, draft.open("wb") as file:
            torch.save(checkpoint, file)
        self._newest = target

    @override
    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Reads a checkpoint."""
        return self._inner.load_checkpoint(path, *args, **kwargs)

    @override
    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes a checkpoint; links to it, such as ``last.ckpt``, are of the newest one from then on."""
        if self._newest is not None and "://" not in str(path):
            _move_links(Path(path), self._newest)
        self._inner.remove_checkpoint(path)

    @override
    def teardown(self) -> None:
        """Ends what reads and removes."""
        self._inner.teardown()


def _move_links(gone: Path, newest: Path) -> None:
    """Lightning moves a link after it has removed what it is of: meanwhile it would be of nothing."""
    for link in gone.parent.glob("*.ckpt"):
        if link.is_symlink() and link.resolve() == gone.resolve() != newest.resolve():
            draft = link.with_name(f".{link.name}.link")
            draft.unlink(missing_ok=True)
            draft.symlink_to(os.path.relpath(newest, link.parent))
            os.replace(draft, link)
