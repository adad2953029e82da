"""Structured pruning of segmentation networks, with every cut proved.

>>> import seg_pruning as sp
>>> import torch
>>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 1))
>>> [group.name for group in sp.trace(net, torch.randn(1, 3, 8, 8)).prunable]
['0']
"""

from importlib.metadata import version

from seg_pruning.profiling import Cost, Latency, Target, cost, latency
from seg_pruning.pruning import criteria
from seg_pruning.pruning.budgets import Budget
from seg_pruning.pruning.prune import PruneResult, prune_
from seg_pruning.pruning.score import score
from seg_pruning.pruning.selection import Selection
from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.cut import Cut
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.files import load_pruned_, save_pruned
from seg_pruning.surgery.graph import ChannelGraph, ChannelGroup
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace

__version__ = version("seg_pruning")

__all__ = [
    "Budget",
    "ChannelGraph",
    "ChannelGroup",
    "Cost",
    "Cut",
    "Latency",
    "Plan",
    "PruneResult",
    "PruningError",
    "Selection",
    "Target",
    "__version__",
    "apply_",
    "cost",
    "criteria",
    "latency",
    "load_pruned_",
    "prune_",
    "save_pruned",
    "score",
    "trace",
]
