"""A plan whose latency was measured: chosen by what is foretold, tried, and chosen anew if it is off."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

from seg_pruning.profiling.latency_model import LatencyModel
from seg_pruning.pruning.amounts import Amounts, Meter
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.plan import Plan

TOLERANCE = 0.05
"""How far below the limit a measured latency may be."""

_ROUNDS = 6
_AIM = 1 - TOLERANCE / 2


@dataclass(frozen=True)
class TimedPlan:
    """A plan, and what it was found to take.

    Attributes:
        plan: what is kept.
        predicted: milliseconds that were foretold when it was chosen.
        got: milliseconds that were measured on the network cut by it, which is then as it was.
        latency: the predictor, corrected by all that was measured.
    """

    plan: Plan
    predicted: float
    got: float
    latency: LatencyModel


def select_timed(
    choose: Callable[[Amounts, LatencyModel], Plan],
    latency: LatencyModel,
    limit: Amounts,
    *,
    relative_to: float | None = None,
) -> TimedPlan:
    """The plan that comes within five percent below the limit of latency, or as near as widths allow.

    Each plan is measured on the network itself, and what was foretold is multiplied by what it was off by,
    for a few rounds at most.

    Args:
        choose: gives the plan for a limit, by a predictor; `select` with all else filled in.
        latency: the predictor to begin with.
        limit: with a `latency_ms`.
        relative_to: milliseconds that the network as it is counts for, where the limit is a fraction of
            those of the dense one: what was measured of the dense network, or what came out of the last cut.
            The pruned network then counts in proportion to it, measured in turns, so that a machine that has
            become slower meanwhile changes nothing.

    Raises:
        PruningError: the limit cannot be reached.
    """
    asked = limit.latency_ms
    assert asked is not None
    meter = Meter(latency.timer.graph)
    tried: list[TimedPlan] = []
    for _ in range(_ROUNDS):
        low = bool(tried) and tried[-1].got < (1 - TOLERANCE) * asked
        plan = _chosen(choose, latency, limit, aims=(asked,) if low else (_AIM * asked, asked))
        if plan is None and tried:
            break
        plan = plan or choose(limit, latency)  # says what can be reached
        if any(plan == before.plan for before in tried):
            break
        predicted = latency(meter.widths(plan))
        got = _measured(latency, plan, relative_to)
        latency = latency.corrected(got / predicted)
        tried.append(TimedPlan(plan, predicted, got, latency))
        if (1 - TOLERANCE) * asked <= got <= asked:
            break
    best = min(tried, key=lambda found: (found.got > asked, abs(found.got - asked)))
    if best.got > (1 + TOLERANCE) * asked:
        warnings.warn(
            f"the nearest plan takes {best.got:.2f} ms of the {asked:.2f} ms that were asked; the machine "
            "may be busy, or the widths are at their floors",
            stacklevel=2,
        )
    return replace(best, latency=latency)


def _chosen(
    choose: Callable[[Amounts, LatencyModel], Plan],
    latency: LatencyModel,
    limit: Amounts,
    *,
    aims: tuple[float, ...],
) -> Plan | None:
    """The plan for the first of some latencies that can be reached; None where none can."""
    for aim in aims:
        try:
            return choose(replace(limit, latency_ms=aim), latency)
        except PruningError:
            continue
    return None


def _measured(latency: LatencyModel, plan: Plan, relative_to: float | None) -> float:
    present, pruned = latency.timer.beside(plan)
    return pruned if relative_to is None else pruned / present * relative_to
