"""Scores and a budget -> the plan: pure.

Every group is a queue of steps. A step takes one channel, or one from each block, the least important first;
its score is the mean of its channels'. `global` scope merges all queues by score, `local` by the share of
the group that is gone. The plan is the shortest prefix of that one order with which all budgets hold.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from seg_pruning.pruning.budgets import Amounts, amounts, shortfall
from seg_pruning.pruning.heads import feeding_outputs
from seg_pruning.pruning.protection import names_of, protected
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

    from seg_pruning.surgery.graph import ChannelGraph, ChannelGroup

Scope: TypeAlias = Literal["global", "local"]
Normalise: TypeAlias = Literal["none", "mean", "l2"]
_Floats: TypeAlias = npt.NDArray[np.float64]
_Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """How channels are chosen, whatever the criterion.

    Attributes:
        scope: "global" ranks all channels together; "local" takes the same fraction of each group.
        normalise: what the scores of a group are divided by before groups are compared: nothing, their mean
            magnitude, or their L2 norm. Local scope never compares groups.
        round_to: widths stay multiples of this, or whole. Runtimes favour 8 or 16.
        floor: fraction of each group's dense width that always stays, in [0, 1); at least one channel stays
            anyway.
        head_floor: the same for groups that feed the outputs, as long as the budget can be reached with it.
            What is left of them decides the sign of every answer: ranked with all others, they can lose every
            channel that speaks for the foreground. Local scope never starves a group and ignores it.
        protect: names of groups, layers or modules, or patterns such as `"head.*"`, that keep their width.
    """

    scope: Scope = "global"
    normalise: Normalise = "mean"
    round_to: int = 1
    floor: float = 0.05
    head_floor: float = 0.5
    protect: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, legal in (("scope", get_args(Scope)), ("normalise", get_args(Normalise))):
            if getattr(self, name) not in legal:
                raise PruningError(f"expected {name} to be one of {legal}, but got {getattr(self, name)!r}")
        if type(self.round_to) is not int or self.round_to < 1:
            raise PruningError(
                f"expected round_to to be a whole number of 1 or more, but got {self.round_to!r}"
            )
        for name in ("floor", "head_floor"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise PruningError(f"expected {name} to be at least 0 and below 1, but got {value!r}")
        object.__setattr__(self, "protect", names_of(self.protect))


@dataclass(frozen=True)
class _Widths:
    """The widths that one group can have.

    Attributes:
        width: channels of the whole group.
        blocks: channels that leave in one step, one from each block.
        least: channels that always stay.
        quantum: widths are multiples of this, or whole.
    """

    width: int
    blocks: int
    least: int
    quantum: int

    @classmethod
    def of(cls, group: ChannelGroup, *, floor: float, dense: int, round_to: int) -> _Widths:
        columns = max(1, math.ceil(round(floor * dense / group.step, 6)))
        least = min(group.size, columns * group.step)
        return cls(group.size, group.step, least, math.lcm(group.step, round_to))

    @property
    def steps(self) -> int:
        """How many steps may be taken."""
        return (self.width - self.least) // self.blocks

    def kept(self, steps: int) -> int:
        """Channels that stay after `steps` steps, rounded up to what is legal."""
        wanted = self.width - steps * self.blocks
        return int(min(self.width, math.ceil(wanted / self.quantum) * self.quantum))


@dataclass(frozen=True)
class _Queue:
    """The channels of one group in the order in which they leave.

    Attributes:
        order: one row of channels for each step, shape `(steps, blocks)`.
        scores: score of each step, never falling.
    """

    order: _Ints
    scores: _Floats

    def keys(self, steps: int, selection: Selection) -> _Floats:
        """What the first `steps` steps are merged by with those of other groups."""
        if selection.scope == "local":
            return np.arange(1, steps + 1) / len(self.scores)
        return self.scores[:steps] / (_scale(self.scores, selection.normalise) or 1.0)


def _scale(scores: _Floats, normalise: Normalise) -> float:
    """What the scores of a group are divided by."""
    if normalise == "none":
        return 1.0
    return float(np.abs(scores).mean() if normalise == "mean" else np.linalg.norm(scores))


def select(
    graph: ChannelGraph,
    scores: Mapping[str, Tensor],
    limit: Amounts,
    selection: Selection = Selection(),
    *,
    dense: Mapping[str, int] | None = None,
    dropped: Sequence[str] = (),
) -> Plan:
    """The plan that keeps as much as the limit allows, the least important channels leaving first.

    Args:
        graph: the groups.
        scores: for each prunable group that is not protected, tensor of shape `(size,)`; low leaves first.
        limit: amounts that may not be exceeded.
        selection: scope, rounding, floors, protection.
        dense: dense width of each group, of which floors are fractions; the present one by default.
        dropped: modules that never run and go as a whole, before any channel has to leave.

    Raises:
        PruningError: scores are missing, of another size or not finite; a protected name is unknown; or the
            limit cannot be reached, with the smallest amounts that can.
    """
    check_reachable(graph, limit, selection, dense=dense, dropped=dropped)
    widths = _widths(graph, selection, dense or {}, guarded=True)
    if not _smallest(graph, widths, dropped).within(limit):
        widths = _widths(graph, selection, dense or {}, guarded=False)
    queues = [_queue(group, w, scores) for group, w in zip(graph.prunable, widths, strict=True)]
    group_of = _merged(queues, widths, selection)

    def kept(taken: int) -> list[int]:
        steps = np.bincount(group_of[:taken], minlength=len(widths))
        return [w.kept(int(n)) for w, n in zip(widths, steps, strict=True)]

    def within(taken: int) -> bool:
        return amounts(graph, np.array(kept(taken), dtype=np.float64), dropped=dropped).within(limit)

    # Amounts never grow with more steps, so that the fewest can be found by halving.
    fewest = bisect_left(range(len(group_of)), True, key=within)
    return _plan(graph, queues, kept(fewest), dropped)


def check_reachable(
    graph: ChannelGraph,
    limit: Amounts,
    selection: Selection = Selection(),
    *,
    dense: Mapping[str, int] | None = None,
    dropped: Sequence[str] = (),
) -> None:
    """Raises where no scores whatever could bring the network to `limit`; arguments as in `select`.

    Raises:
        PruningError: a protected name is unknown, or the network with every group at its floor is above the
            limit; the message gives the smallest amounts that can be reached.
    """
    smallest = _smallest(graph, _widths(graph, selection, dense or {}, guarded=False), dropped)
    if not smallest.within(limit):
        raise PruningError(
            f"the budget cannot be reached: {shortfall(smallest, limit, amounts(graph))}. Keep more, lower "
            f"floor={selection.floor} or round_to={selection.round_to}, or protect less; "
            f"trace(model, example_inputs).report() says what is pinned and why{_idle(graph, dropped)}"
        )


def _idle(graph: ChannelGraph, dropped: Sequence[str]) -> str:
    """A word about parameters that never run and are still there."""
    gone = tuple(f"{path}." for path in dropped)
    names = [name for name in graph.idle if not name.startswith(gone)]
    count = sum(math.prod(graph.trace.shapes[name]) for name in names)
    return f"; {count:,} parameters never run, and prune_(dead=True) drops their modules" if count else ""


def _smallest(graph: ChannelGraph, widths: Sequence[_Widths], dropped: Sequence[str]) -> Amounts:
    least = [w.kept(w.steps) for w in widths]
    return amounts(graph, np.array(least, dtype=np.float64), dropped=dropped)


def _widths(
    graph: ChannelGraph, selection: Selection, dense: Mapping[str, int], *, guarded: bool
) -> list[_Widths]:
    """The widths that each prunable group can have, with `head_floor` if `guarded`."""
    whole = protected(graph, selection.protect)
    heads = feeding_outputs(graph) if guarded and selection.scope == "global" else frozenset()
    floors = {name: max(selection.floor, selection.head_floor) for name in heads} | dict.fromkeys(whole, 1.0)
    return [
        _Widths.of(
            group,
            floor=floors.get(group.name, selection.floor),
            dense=dense.get(group.name, group.size),
            round_to=selection.round_to,
        )
        for group in graph.prunable
    ]


def _queue(group: ChannelGroup, widths: _Widths, scores: Mapping[str, Tensor]) -> _Queue:
    rows = np.array(group.rows, dtype=np.int64)
    values = _checked(group, scores) if widths.steps else np.zeros(group.size)
    order = np.take_along_axis(rows, np.argsort(values[rows], axis=1, kind="stable"), axis=1).T
    return _Queue(order, values[order].mean(axis=1))


def _checked(group: ChannelGroup, scores: Mapping[str, Tensor]) -> _Floats:
    if group.name not in scores:
        raise PruningError(f"there is no score for group {group.name!r}; score all of graph.prunable")
    values: _Floats = scores[group.name].detach().double().cpu().numpy()
    if values.shape != (group.size,):
        raise PruningError(
            f"expected the scores of group {group.name!r} to be of shape {(group.size,)}, one for each "
            f"channel, but got {values.shape}"
        )
    if not np.isfinite(values).all():
        raise PruningError(
            f"{int((~np.isfinite(values)).sum())} of the {group.size} scores of group {group.name!r} are not "
            "finite; look for weights or gradients that are not"
        )
    return values


def _merged(queues: Sequence[_Queue], widths: Sequence[_Widths], selection: Selection) -> _Ints:
    """The group of each step, in the one order in which channels leave; ties go by step, then by group."""
    keys = [queue.keys(w.steps, selection) for queue, w in zip(queues, widths, strict=True)]
    if not keys:
        return np.zeros(0, dtype=np.int64)
    group_of = np.repeat(np.arange(len(keys)), [len(key) for key in keys])
    step_of = np.concatenate([np.arange(len(key)) for key in keys])
    return group_of[np.lexsort((group_of, step_of, np.concatenate(keys)))]


def _plan(graph: ChannelGraph, queues: Sequence[_Queue], kept: Sequence[int], dropped: Sequence[str]) -> Plan:
    chosen = {
        group.name: tuple(sorted(queue.order[(group.size - n) // group.step :].reshape(-1).tolist()))
        for group, queue, n in zip(graph.prunable, queues, kept, strict=True)
        if n < group.size
    }
    return Plan(chosen, {name: graph[name].size for name in chosen}, tuple(dropped))
