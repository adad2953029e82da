"""The one order in which channels leave.

Every group is a queue of steps. A step takes one channel, or one from each block, the least important first;
its score is the mean of its channels'. Where blocks may leave as a whole (`branches`) another step takes such
a block from each group that loses it. `global` scope merges all queues by score, `local` by the share of
the group that is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seg_pruning.pruning.amounts import Meter
from seg_pruning.pruning.branches import Member, played, worth
from seg_pruning.pruning.options import Normalise, Per, Selection
from seg_pruning.pruning.widths import AllWidths, Floats, Ints
from seg_pruning.surgery.errors import PruningError

if TYPE_CHECKING:
    from torch import Tensor

    from seg_pruning.surgery.graph import ChannelBranches, ChannelGroup


@dataclass(frozen=True)
class Queue:
    """The channels of one group in the order in which they leave.

    Attributes:
        order: one row of channels for each step, shape `(steps, blocks)`.
        values: their scores, of the same shape.
    """

    order: Ints
    values: Floats

    @classmethod
    def of(cls, group: ChannelGroup, scores: Mapping[str, Tensor], *, steps: int) -> Queue:
        """The queue of `group`; its scores are not looked at where no step may be taken.

        Raises:
            PruningError: the scores are missing, of another size or not finite.
        """
        rows = np.array(group.rows, dtype=np.int64)
        values = _checked(group, scores) if steps else np.zeros(group.size)
        order = np.take_along_axis(rows, np.argsort(values[rows], axis=1, kind="stable"), axis=1).T
        return cls(order, values[order])

    @property
    def scores(self) -> Floats:
        """Score of each step, never falling."""
        return np.asarray(self.values.mean(axis=1))


@dataclass(frozen=True)
class Order:
    """The one order in which channels leave.

    Attributes:
        movers: what each step takes: of which group a step, by its position; behind the groups come the sets
            of branches.
        branches: for each set its branches in the order in which they leave; none where all stay.
    """

    movers: Ints
    branches: tuple[Ints, ...] = ()


@dataclass(frozen=True)
class _Leaving:
    """Some of the steps: their movers, how many the same mover took before, what they are merged by."""

    movers: Ints
    ranks: Ints
    keys: Floats


def merged(
    queues: Sequence[Queue], widths: AllWidths, selection: Selection, meter: Meter, *, apart: bool = False
) -> Order:
    """The order of all steps; ties go by step, then by group. Steps that ceilings take come first.

    Blocks leave as long as what stays of a group is no less than its floor. It then depends on the scores how
    small groups can become. Where `apart` is set, they leave as long as any columns might leave beside them,
    so that all ends with `widths.steps`.

    Raises:
        PruningError: scores are counted per latency, which is not known.
    """
    if not queues:
        return Order(np.zeros(0, dtype=np.int64))
    counts, forced = widths.steps, widths.forced
    saved = savings(meter, selection.per) if selection.scope == "global" else np.ones(len(counts))
    scaled = [queue.values / (_scale(queue.scores, selection.normalise) or 1.0) for queue in queues]
    raced, branches = _raced(scaled, widths, saved, meter.graph.branches, apart=apart)
    together = {at for each in widths.branchings if each.leaving(apart=apart) for at in each.groups}
    parts = list(raced)
    for at in (at for at in range(len(queues)) if at not in together):
        ranks = np.arange(counts[at])
        keys = (ranks + 1) / len(scaled[at])
        if selection.scope == "global":
            keys = worth(scaled[at][: counts[at]].mean(axis=1), saved[at])
        parts.append(_Leaving(np.full_like(ranks, at), ranks, np.where(ranks < forced[at], -np.inf, keys)))
    movers = np.concatenate([part.movers for part in parts])
    ranks = np.concatenate([part.ranks for part in parts])
    worths = np.concatenate([part.keys for part in parts])
    return Order(movers[np.lexsort((movers, ranks, worths))], branches)


def _raced(
    scaled: Sequence[Floats],
    widths: AllWidths,
    saved: Floats,
    sets: Sequence[ChannelBranches],
    *,
    apart: bool,
) -> tuple[list[_Leaving], tuple[Ints, ...]]:
    """The steps of each set from which branches may leave, and for every set the order of its branches."""
    found, orders = list[_Leaving](), list[Ints]()
    for number, (each, branches) in enumerate(zip(widths.branchings, sets, strict=True), start=len(scaled)):
        orders.append(np.zeros(0, dtype=np.int64))
        most = each.leaving(apart=apart)
        if not most:
            continue
        floors = [0.0 if apart else floor for floor in each.floors]
        members = [
            Member(scaled[at][:, list(rows)], saved[at], int(widths.steps[at]), int(widths.forced[at]), floor)
            for at, rows, floor in zip(each.groups, branches.rows.values(), floors, strict=True)
        ]
        steps = played(members, price=saved[number], most=most)
        movers = np.array([*each.groups, number])[steps.movers]
        found.append(_Leaving(movers, _ranks(movers), steps.keys))
        orders[-1] = steps.branches
    return found, tuple(orders)


def _ranks(movers: Ints) -> Ints:
    """How many steps the mover of each took before, never falling.

    >>> _ranks(np.array([7, 7, 9, 7, 9]))
    array([0, 1, 1, 2, 2])
    """
    ranks = np.zeros(len(movers), dtype=np.int64)
    for mover in np.unique(movers):
        ranks[movers == mover] = np.arange((movers == mover).sum())
    return np.maximum.accumulate(ranks)


def _scale(scores: Floats, normalise: Normalise) -> float:
    """What the scores of a group are divided by."""
    if normalise == "none":
        return 1.0
    return float(np.abs(scores).mean() if normalise == "mean" else np.linalg.norm(scores))


def savings(meter: Meter, per: Per) -> Floats:
    """What one step of each group saves, all others whole, relative to the mean of all groups.

    Behind them what a branch of each set saves, for as many channels as it has blocks: as a column has.

    Ones where scores are taken as they are. A step that saves next to nothing counts as a thousandth.

    Raises:
        PruningError: scores are counted per latency, which is not known.
    """
    graph, whole = meter.graph, meter.whole
    if per == "channel" or not graph.prunable:
        return np.ones(len(whole))
    amount = meter.amounts.get("latency_ms" if per == "latency" else per)
    if amount is None:
        raise PruningError(
            'per="latency" needs to know latencies: give prune_(target=...), or select(latency=...)'
        )
    first = len(graph.prunable)
    columns = np.diag([float(min(group.step, group.size - 1)) for group in graph.prunable])
    less = [np.append(whole[:first] - column, whole[first:]) for column in columns]
    less += [graph.without_branch(number) for number in range(len(graph.branches))]
    saved = amount(whole) - np.array([amount(kept) for kept in less], dtype=np.float64)
    for number, branches in enumerate(graph.branches, start=first):
        saved[number] *= branches.size / (whole - less[number])[:first].sum()
    return np.maximum(saved / (saved[:first].mean() or 1.0), 1e-3)


def _checked(group: ChannelGroup, scores: Mapping[str, Tensor]) -> Floats:
    if group.name not in scores:
        raise PruningError(f"there is no score for group {group.name!r}; score all of graph.prunable")
    values: Floats = scores[group.name].detach().double().cpu().numpy()
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
