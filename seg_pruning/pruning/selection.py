"""Scores and a budget -> the plan: pure.

Every group is a queue of steps. A step takes one channel, or one from each block, the least important first;
its score is the mean of its channels'. `global` scope merges all queues by score, `local` by the share of
the group that is gone. The plan is the shortest prefix of that one order with which all budgets hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from seg_pruning.pruning.budgets import Amounts, amounts, overshoot
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

    from seg_pruning.surgery.graph import ChannelGraph, ChannelGroup

Scope: TypeAlias = Literal["global", "local"]
Normalise: TypeAlias = Literal["none", "mean", "l2"]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Selection:
    """How channels are chosen, whatever the criterion.

    Attributes:
        scope: "global" ranks all channels together; "local" takes the same fraction of each group.
        normalise: what the scores of a group are divided by before groups are compared: nothing, their mean,
            or their L2 norm. Local scope never compares groups.
        round_to: widths stay multiples of this, or whole. Runtimes favour 8 or 16.
        floor: fraction of each group that always stays, in [0, 1); at least one channel stays anyway.
        protect: names of groups or layers, or patterns such as `"head.*"`, that keep their width.
    """

    scope: Scope = "global"
    normalise: Normalise = "mean"
    round_to: int = 1
    floor: float = 0.05
    protect: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, legal in (("scope", get_args(Scope)), ("normalise", get_args(Normalise))):
            if getattr(self, name) not in legal:
                raise PruningError(f"expected {name} to be one of {legal}, but got {getattr(self, name)!r}")
        if type(self.round_to) is not int or self.round_to < 1:
            raise PruningError(
                f"expected round_to to be a whole number of 1 or more, but got {self.round_to!r}"
            )
        if not 0 <= self.floor < 1:
            raise PruningError(f"expected floor to be at least 0 and below 1, but got {self.floor!r}")
        if not all(len(name) > 1 for name in self.protect):
            raise PruningError(f"expected protect to be a tuple of names, but got {self.protect!r}")
        object.__setattr__(self, "protect", tuple(self.protect))


@dataclass(frozen=True)
class _Queue:
    """The steps by which one group can shrink.

    Attributes:
        order: the channels in the order in which they leave, one row for each step, shape `(steps, blocks)`.
        scores: score of each step, never falling.
        removable: how many of the steps may be taken.
        width: number of channels of the whole group.
        least: number of channels that always stay.
        quantum: widths are multiples of this, or whole.
    """

    order: npt.NDArray[np.int64]
    scores: _Floats
    removable: int
    width: int
    least: int
    quantum: int

    def kept(self, steps: int) -> int:
        """Channels that stay after `steps` steps, rounded up to what is legal."""
        blocks = self.order.shape[1]
        wanted = max(self.width - steps * blocks, self.least)
        return int(min(self.width, math.ceil(wanted / self.quantum) * self.quantum))


def select(
    graph: ChannelGraph, scores: Mapping[str, Tensor], limit: Amounts, selection: Selection = Selection()
) -> Plan:
    """The plan that keeps as much as the limit allows, the least important channels leaving first.

    Args:
        graph: the groups.
        scores: for each prunable group, tensor of shape `(size,)`; low leaves first.
        limit: amounts that may not be exceeded.
        selection: scope, rounding, floors, protection.

    Raises:
        PruningError: scores are missing, of another size or not finite; a protected name is unknown; or the
            limit cannot be reached, with the smallest amounts that can.
    """
    guarded = protected(graph, selection.protect)
    queues = [_queue(group, scores, selection, whole=group.name in guarded) for group in graph.prunable]
    group_of, step_of = _merged(queues, selection)
    counts = _Counts(graph, queues, group_of, step_of)
    smallest = counts.amounts(len(group_of))
    if not smallest.within(limit):
        raise PruningError(
            f"the budget cannot be reached: with every group at its floor there are still "
            f"{overshoot(smallest, limit)}; the smallest reachable is {smallest}. Ask for more, lower floor={selection.floor} or "
            f"round_to={selection.round_to}, or protect less"
        )
    taken = counts.fewest(limit)
    return _plan(graph, queues, counts.steps(taken))


class _Counts:
    """Kept channels and costs after the first n steps of the merged order."""

    def __init__(
        self,
        graph: ChannelGraph,
        queues: Sequence[_Queue],
        group_of: npt.NDArray[np.int64],
        step_of: npt.NDArray[np.int64],
    ) -> None:
        self.graph = graph
        self.queues = queues
        self.group_of = group_of
        self.step_of = step_of

    def steps(self, taken: int) -> npt.NDArray[np.int64]:
        return np.bincount(self.group_of[:taken], minlength=len(self.queues))

    def amounts(self, taken: int) -> Amounts:
        kept = [queue.kept(int(n)) for queue, n in zip(self.queues, self.steps(taken), strict=True)]
        return amounts(self.graph, np.array(kept, dtype=np.float64))

    def fewest(self, limit: Amounts) -> int:
        """The smallest number of steps with which the limit holds: amounts never grow with more steps."""
        low, high = 0, len(self.group_of)
        while low < high:
            middle = (low + high) // 2
            if self.amounts(middle).within(limit):
                high = middle
            else:
                low = middle + 1
        return low


def protected(graph: ChannelGraph, patterns: Sequence[str]) -> frozenset[str]:
    """The groups whose width `patterns` keep: by their name, or by a layer that makes or carries their channels.

    Raises:
        PruningError: a pattern matches nothing; the message names what is nearest.
    """
    names = {group.name: {group.name, *_carriers(group)} for group in graph.groups}
    known = sorted({name for layers in names.values() for name in layers})
    for pattern in patterns:
        if not any(_matches(pattern, name) for name in known):
            near = get_close_matches(pattern, known, n=3) or known[:10]
            raise PruningError(
                f"protect names {pattern!r}, which no group or layer matches; nearest: {', '.join(near)}"
            )
    return frozenset(
        name
        for name, layers in names.items()
        if any(_matches(p, layer) for p in patterns for layer in layers)
    )


def _carriers(group: ChannelGroup) -> set[str]:
    return {member.tensor.rpartition(".")[0] for member in group.members if member.side != "in"}


def _matches(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")


def _queue(group: ChannelGroup, scores: Mapping[str, Tensor], selection: Selection, *, whole: bool) -> _Queue:
    values = _checked(group, scores)
    rows = np.array(group.rows, dtype=np.int64)
    blocks, columns = rows.shape
    order = np.take_along_axis(rows, np.argsort(values[rows], axis=1, kind="stable"), axis=1).T
    quantum = math.lcm(blocks, selection.round_to)
    least = group.size if whole else max(blocks, math.ceil(selection.floor * columns) * blocks)
    removable = (group.size - least) // blocks
    return _Queue(order, values[order].mean(axis=1), removable, group.size, least, quantum)


def _checked(group: ChannelGroup, scores: Mapping[str, Tensor]) -> _Floats:
    if group.name not in scores:
        raise PruningError(f"there is no score for group {group.name!r}; score all of graph.prunable")
    values: _Floats = scores[group.name].detach().double().cpu().numpy()
    if values.shape != (group.size,) or not np.isfinite(values).all():
        raise PruningError(
            f"the scores of group {group.name!r} must be {group.size} finite numbers, "
            f"but are of shape {values.shape} with {int((~np.isfinite(values)).sum())} that are not finite"
        )
    return values


def _merged(
    queues: Sequence[_Queue], selection: Selection
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The group and the step of each entry of the one order in which channels leave."""
    keys = [_keys(queue, selection) for queue in queues]
    group_of = np.repeat(np.arange(len(queues)), [len(key) for key in keys])
    step_of = np.concatenate([np.arange(len(key)) for key in keys]) if keys else np.zeros(0, dtype=np.int64)
    order = np.lexsort((group_of, step_of, np.concatenate(keys))) if keys else np.zeros(0, dtype=np.int64)
    return group_of[order], step_of[order]


def _keys(queue: _Queue, selection: Selection) -> _Floats:
    if selection.scope == "local":
        return np.arange(1, queue.removable + 1) / len(queue.scores)
    scale = _scale(queue, selection.normalise)
    return queue.scores[: queue.removable] / (scale or 1.0)


def _scale(queue: _Queue, normalise: Normalise) -> float:
    """What the scores of a group are divided by."""
    if normalise == "none":
        return 1.0
    return float(np.abs(queue.scores).mean() if normalise == "mean" else np.linalg.norm(queue.scores))


def _plan(graph: ChannelGraph, queues: Sequence[_Queue], steps: npt.NDArray[np.int64]) -> Plan:
    kept, sizes = {}, {}
    for group, queue, n in zip(graph.prunable, queues, steps, strict=True):
        removed = (group.size - queue.kept(int(n))) // queue.order.shape[1]
        gone = set(queue.order[:removed].reshape(-1).tolist())
        if gone:
            kept[group.name] = tuple(i for i in range(group.size) if i not in gone)
            sizes[group.name] = group.size
    return Plan(kept, sizes)
