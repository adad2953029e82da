"""Scores and a budget -> the plan: pure.

The plan is the shortest prefix of the one order of all steps (`ranking`) with which all budgets hold; then
the steps that were taken last come back, as long as the budgets still hold.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from seg_pruning.pruning.amounts import Amounts, LatencyOf, Meter, shortfall
from seg_pruning.pruning.options import Normalise, Per, RoundTo, Scope, Selection
from seg_pruning.pruning.ranking import Order, Queue, merged
from seg_pruning.pruning.widths import AllWidths, Floats, Ints, widths_of
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

    from seg_pruning.surgery.graph import ChannelGraph

__all__ = (
    "Normalise",
    "Per",
    "RoundTo",
    "Scope",
    "Selection",
    "check_reachable",
    "select",
    "smallest_amounts",
)


def select(
    graph: ChannelGraph,
    scores: Mapping[str, Tensor],
    limit: Amounts,
    selection: Selection = Selection(),  # noqa: B008 - frozen
    *,
    dense: Mapping[str, int] | None = None,
    dropped: Sequence[str] = (),
    latency: LatencyOf | None = None,
) -> Plan:
    """The plan that keeps as much as the limit allows, the least important channels leaving first.

    In the end no group could keep one step more. In local scope each group takes back one step at most, so
    that all lose the same fraction to within two steps.

    Args:
        graph: the groups.
        scores: for each prunable group that is not protected, tensor of shape `(size,)`; low leaves first.
        limit: amounts that may not be exceeded.
        selection: scope, rounding, floors, ceilings, protection. An open `round_to` is 1 here, where no
            device is known; `Selection.resolved` knows better.
        dense: dense width of each group, of which floors are fractions; the present one by default.
        dropped: modules that never run and go as a whole, before any channel has to leave.
        latency: milliseconds at given widths, where they are limited or ranked by.

    Raises:
        PruningError: scores are missing, of another size or not finite; a name is unknown; a ceiling is below
            a floor; or the limit cannot be reached, with the smallest amounts that can.
    """
    check_reachable(graph, limit, selection, dense=dense, dropped=dropped, latency=latency)
    meter = Meter(graph, tuple(dropped), dense, latency)
    fits = meter.judge(limit)
    widths = widths_of(graph, selection, dense or {}, guarded=True)
    if not fits(widths.kept(widths.steps)):
        widths = widths_of(graph, selection, dense or {}, guarded=False)
    counts = widths.shrinking
    queues = [Queue.of(group, scores, steps=int(n)) for group, n in zip(graph.prunable, counts, strict=True)]
    order = merged(queues, widths, selection, meter)
    if not fits(widths.kept(np.bincount(order.movers, minlength=len(widths.steps)))):
        order = merged(queues, widths, selection, meter, apart=True)
    steps = _spent(order.movers, widths, fits, once=selection.scope == "local")
    return _plan(graph, queues, order, widths.kept(steps).astype(np.int64), dropped)


def check_reachable(
    graph: ChannelGraph,
    limit: Amounts,
    selection: Selection = Selection(),  # noqa: B008 - frozen
    *,
    dense: Mapping[str, int] | None = None,
    dropped: Sequence[str] = (),
    latency: LatencyOf | None = None,
) -> None:
    """Raises where no scores whatever could bring the network to `limit`; arguments as in `select`.

    Raises:
        PruningError: a name is unknown, a ceiling is below a floor, or the network with every group at its
            floor is above the limit; the message gives the smallest amounts that can be reached.
    """
    smallest = smallest_amounts(graph, selection, dense=dense, dropped=dropped, latency=latency)
    unknown = [name for name in smallest.above(limit) if name not in smallest.known]
    if unknown:
        raise PruningError(
            f"the limit is also of {', '.join(unknown)}, which is not known here: give latency=..., the "
            "milliseconds at given widths"
        )
    if not smallest.within(limit):
        present = Meter(graph, (), dense, latency)
        raise PruningError(
            f"the budget cannot be reached: {shortfall(smallest, limit, present.read(present.whole))}. "
            f"Keep more, lower floor={selection.floor} or round_to={selection.round_to}, or protect less; "
            f"trace(model, example_inputs).report() says what is pinned and why{_idle(graph, dropped)}"
        )


def smallest_amounts(
    graph: ChannelGraph,
    selection: Selection = Selection(),  # noqa: B008 - frozen
    *,
    dense: Mapping[str, int] | None = None,
    dropped: Sequence[str] = (),
    latency: LatencyOf | None = None,
) -> Amounts:
    """What the network costs with every group at its floor; arguments as in `select`."""
    widths = widths_of(graph, selection, dense or {}, guarded=False)
    return Meter(graph, tuple(dropped), dense, latency).read(widths.kept(widths.steps))


def _idle(graph: ChannelGraph, dropped: Sequence[str]) -> str:
    """A word about parameters that never run and are still there."""
    gone = tuple(f"{path}." for path in dropped)
    names = [name for name in graph.idle if not name.startswith(gone)]
    count = sum(int(np.prod(graph.trace.shapes[name])) for name in names)
    return f"; {count:,} parameters never run, and prune_(dead=True) drops their modules" if count else ""


def _spent(
    order: Ints,
    widths: AllWidths,
    fits: Callable[[Floats], bool],
    *,
    once: bool,
) -> Ints:
    """The steps that are taken of each group: the fewest of `order` that fit, less what can come back."""
    size = len(widths.steps)

    def counted(groups: Ints) -> Ints:
        return np.bincount(groups, minlength=size).astype(np.int64)

    # Amounts never grow with more steps, so that the fewest can be found by halving.
    forced = int(widths.forced.sum())
    fewest = forced + bisect_left(
        range(forced, len(order)), True, key=lambda n: fits(widths.kept(counted(order[:n])))
    )
    steps = counted(order[:fewest])
    back = order[forced:fewest][::-1]
    if once:
        back = back[np.sort(np.unique(back, return_index=True)[1])]
    while len(back):
        more = bisect_left(
            range(1, len(back) + 1),
            True,
            key=lambda n: not fits(widths.kept(steps - counted(back[:n]))),
        )
        steps = steps - counted(back[:more])
        # The group that is too large with one step more will be so with every other one, too.
        back = back[more:][back[more:] != back[more]] if more < len(back) else back[:0]
    return steps


def _plan(
    graph: ChannelGraph, queues: Sequence[Queue], order: Order, kept: Ints, dropped: Sequence[str]
) -> Plan:
    rows = {group.name: list(range(len(group.rows))) for group in graph.prunable}
    for branches, leaving, n in zip(
        graph.branches, order.branches, kept[len(queues) :].tolist(), strict=True
    ):
        for name, row_of in branches.rows.items():
            gone = {row_of[branch] for branch in leaving[: branches.size - n]}
            rows[name] = [row for row in rows[name] if row not in gone]
    chosen = {
        group.name: _chosen(queue, rows[group.name], n)
        for group, queue, n in zip(graph.prunable, queues, kept.tolist(), strict=False)
        if n < group.size
    }
    return Plan(chosen, {name: graph[name].size for name in chosen}, tuple(dropped))


def _chosen(queue: Queue, rows: Sequence[int], kept: int) -> tuple[int, ...]:
    """The `kept` channels of a group that leave last, of each of the `rows` which stay as many."""
    columns = kept // len(rows)
    return tuple(sorted(queue.order[len(queue.order) - columns :, list(rows)].reshape(-1).tolist()))
