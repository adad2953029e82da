"""When channels leave: the pruning of a network while Lightning trains it."""

from seg_pruning.callbacks.dense import DENSE_CHECKPOINT
from seg_pruning.callbacks.iterative_pruning import IterativePruning

__all__ = ["DENSE_CHECKPOINT", "IterativePruning"]
