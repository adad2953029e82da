"""The dense network beside the pruned ones, to compare with."""

from pathlib import Path

import lightning as L

DENSE_CHECKPOINT = "dense.ckpt"
"""The name of the checkpoint that is written just before the first cut."""


def save_dense(trainer: L.Trainer) -> None:
    """Writes the weights beside the other checkpoints; nothing where a trainer keeps none."""
    folder = getattr(trainer.checkpoint_callback, "dirpath", None)
    if folder is not None:
        trainer.save_checkpoint(Path(folder) / DENSE_CHECKPOINT, weights_only=True)
