"""When channels leave: the pruning of a network while Lightning trains it."""

from seg_pruning.callbacks.iterative_pruning import DENSE_CHECKPOINT, IterativePruning

__all__ = ["DENSE_CHECKPOINT", "IterativePruning"]
