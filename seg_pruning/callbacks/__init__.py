"""When channels leave: the pruning of a network while Lightning trains it."""

from seg_pruning.callbacks.dense import DENSE_CHECKPOINT
from seg_pruning.callbacks.distillation import Distillation
from seg_pruning.callbacks.floor import Floor
from seg_pruning.callbacks.iterative_pruning import IterativePruning
from seg_pruning.callbacks.options import Recovery, Schedule, Scoring

__all__ = ["DENSE_CHECKPOINT", "Distillation", "Floor", "IterativePruning", "Recovery", "Schedule", "Scoring"]
