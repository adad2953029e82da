"""Which channel matters least: one idea per file.

To add one: subclass `Criterion` in a file of its own with its paper at the top, set `gradients`, answer a
call, and name it in `CRITERIA`, by which `prune_` and the command line know it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from seg_pruning.pruning.criteria.base import Criterion, Members
from seg_pruning.pruning.criteria.magnitude import L1, L2
from seg_pruning.pruning.criteria.random import Random
from seg_pruning.pruning.criteria.taylor import Taylor
from seg_pruning.pruning.names import choose

__all__ = ("CRITERIA", "L1", "L2", "Criterion", "Members", "Random", "Taylor", "get")

CRITERIA: Mapping[str, Callable[[], Criterion]] = MappingProxyType(
    {"random": Random, "l1": L1, "l2": L2, "taylor": Taylor}
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
