"""Which channel matters least: one idea per file.

A criterion of your own is one class with one method. Scores from weights or gradients answer a call, scores
from what layers put out answer `measure`:

    class MeanSquare(OutputCriterion):
        gradients = False

        def measure(self, output, gradient):  # (N, C, positions) -> (N, C)
            return output.square().mean(-1)

    class PerWeight(Criterion):
        gradients = False

        def __call__(self, group, weights, gradients):  # -> (group.size,), low leaves first
            return self.total(group, lambda name: weights[name].abs()) / len(self.counted(group))

Its instance goes wherever a name goes: `score(graph, model, MeanSquare(), data=images)`; from a configuration
by `class_path: my_project.criteria.MeanSquare`. To add one here: a file of its own with its paper at the top,
and a name in `CRITERIA`, by which `prune_` and the command line know it.

Example:
    >>> import torch
    >>> from seg_pruning.pruning.score import score
    >>> from seg_pruning.surgery.trial import trace
    >>> class MeanSquare(OutputCriterion):
    ...     def measure(self, output, gradient):
    ...         return output.square().mean(-1)
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 1, 1))
    >>> graph = trace(net, torch.randn(1, 3, 8, 8))
    >>> scores = score(graph, net, MeanSquare(), data=[torch.randn(2, 3, 8, 8)])
    >>> {name: tuple(found.shape) for name, found in scores.items()}
    {'0': (4,)}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from seg_pruning.pruning.criteria.activation import Activation
from seg_pruning.pruning.criteria.base import Criterion, Members, Needs, OutputGradient
from seg_pruning.pruning.criteria.bn_scale import BNScale
from seg_pruning.pruning.criteria.elementwise import Elementwise
from seg_pruning.pruning.criteria.fpgm import FPGM
from seg_pruning.pruning.criteria.hessian import Hessian
from seg_pruning.pruning.criteria.lamp import LAMP
from seg_pruning.pruning.criteria.magnitude import L1, L2
from seg_pruning.pruning.criteria.members import Reduce
from seg_pruning.pruning.criteria.outputs import OutputCriterion
from seg_pruning.pruning.criteria.random import Random
from seg_pruning.pruning.criteria.taylor import Taylor
from seg_pruning.pruning.names import choose

__all__ = (
    "CRITERIA",
    "FPGM",
    "L1",
    "L2",
    "LAMP",
    "Activation",
    "BNScale",
    "Criterion",
    "Elementwise",
    "Hessian",
    "Members",
    "Needs",
    "OutputCriterion",
    "OutputGradient",
    "Random",
    "Reduce",
    "Taylor",
    "get",
)

CRITERIA: Mapping[str, Callable[[], Criterion]] = MappingProxyType(
    {
        "random": Random,
        "l1": L1,
        "l2": L2,
        "taylor": Taylor,
        "bn_scale": BNScale,
        "fpgm": FPGM,
        "lamp": LAMP,
        "hessian": Hessian,
        "activation": Activation,
    }
)


def get(criterion: str | Criterion) -> Criterion:
    """The criterion of this name with its defaults; a criterion is its own answer.

    Raises:
        PruningError: No criterion has this name; the message lists them with the nearest one.

    Example:
        >>> get("taylor").form
        'squared'
    """
    return criterion if isinstance(criterion, Criterion) else choose(CRITERIA, criterion, kind="criterion")()
