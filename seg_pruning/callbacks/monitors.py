"""What watches a metric is started anew when the network changes: an old best is of another network."""

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from seg_pruning.packages import of_kind


def reset_monitors_(trainer: L.Trainer) -> None:
    """Makes checkpoints, early stopping and plateau schedulers forget the best that they saw.

    Files already written stay: they hold the networks of other sizes.
    """
    for checkpoint in of_kind(trainer.checkpoint_callbacks, ModelCheckpoint):
        _reset_checkpoint_(checkpoint)
    for stopping in of_kind(trainer.early_stopping_callbacks, EarlyStopping):
        stopping.wait_count = 0
        stopping.best_score = _worst(stopping.mode)
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            config.scheduler.best = float(_worst(config.scheduler.mode))
            config.scheduler.num_bad_epochs = 0


def _reset_checkpoint_(checkpoint: ModelCheckpoint) -> None:
    checkpoint.best_model_score = None
    checkpoint.best_model_path = ""
    checkpoint.best_k_models = {}
    checkpoint.kth_best_model_path = ""
    checkpoint.kth_value = _worst(checkpoint.mode)
    checkpoint.current_score = None


def _worst(mode: str) -> torch.Tensor:
    return torch.tensor(float("inf") if mode == "min" else -float("inf"))
