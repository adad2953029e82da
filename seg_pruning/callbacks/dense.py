"""The dense network beside the pruned ones, to compare with."""

import shutil
from abc import ABC, abstractmethod
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from seg_pruning.callbacks.averages import save_weights
from seg_pruning.packages import of_kind
from seg_pruning.surgery.atomic import whole_file

DENSE_CHECKPOINT = "dense.ckpt"
"""The name of the checkpoint that is written just before the first cut."""


class DenseListener(L.Callback, ABC):
    """A callback that wants the dense network: `IterativePruning` shows it just before the first cut."""

    @abstractmethod
    def before_first_cut(self, module: L.LightningModule) -> None:
        """Looks at `module`, which is still dense; what is to be kept of it has to be copied."""


def save_dense(trainer: L.Trainer) -> Path | None:
    """Writes the weights beside the other checkpoints, and says where; nothing where a trainer keeps none."""
    target = _target(trainer)
    if target is not None:
        save_weights(trainer, target)
    return target


def bring_dense(trainer: L.Trainer) -> None:
    """Copies the dense network from beside the checkpoint that training goes on from, so that it has both."""
    target = _target(trainer)
    if target is None or target.exists() or trainer.ckpt_path is None:
        return
    source = Path(trainer.ckpt_path).with_name(DENSE_CHECKPOINT)
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target, alone=True) as draft:  # half a copy would be taken for all of it next time
            shutil.copyfile(source, draft)


def save_last_again(trainer: L.Trainer) -> None:
    """Writes the last checkpoint anew, with the network that training ended with."""
    for checkpoint in of_kind(trainer.checkpoint_callbacks, ModelCheckpoint):
        if checkpoint.save_last and checkpoint.last_model_path:
            trainer.save_checkpoint(checkpoint.last_model_path, weights_only=checkpoint.save_weights_only)


def checkpoint_folder(trainer: L.Trainer, part: str = "") -> Path | None:
    """Where the trainer keeps checkpoints; None where it keeps none.

    Args:
        trainer: the training.
        part: what is pruned, where several parts are: each has a folder of its own in there.
    """
    folder = getattr(trainer.checkpoint_callback, "dirpath", None)
    return None if folder is None else Path(folder) / part


def _target(trainer: L.Trainer) -> Path | None:
    folder = checkpoint_folder(trainer)
    return None if folder is None else folder / DENSE_CHECKPOINT
