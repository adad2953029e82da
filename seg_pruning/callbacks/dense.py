"""The dense network beside the pruned ones, to compare with."""

import shutil
from pathlib import Path

import lightning as L

DENSE_CHECKPOINT = "dense.ckpt"
"""The name of the checkpoint that is written just before the first cut."""


def save_dense(trainer: L.Trainer) -> None:
    """Writes the weights beside the other checkpoints; nothing where a trainer keeps none."""
    target = _target(trainer)
    if target is not None:
        trainer.save_checkpoint(target, weights_only=True)


def bring_dense(trainer: L.Trainer) -> None:
    """Copies the dense network from beside the checkpoint that training goes on from, so that it has both."""
    target = _target(trainer)
    if target is None or target.exists() or trainer.ckpt_path is None:
        return
    source = Path(trainer.ckpt_path).with_name(DENSE_CHECKPOINT)
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def _target(trainer: L.Trainer) -> Path | None:
    folder = getattr(trainer.checkpoint_callback, "dirpath", None)
    return None if folder is None else Path(folder) / DENSE_CHECKPOINT
