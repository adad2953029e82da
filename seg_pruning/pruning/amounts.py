"""What a network costs, and what it would cost if each group kept so many channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeAlias

from seg_pruning.surgery.graph import SINGLE_CHANNEL

if TYPE_CHECKING:
    from seg_pruning.surgery.costs import Vector
    from seg_pruning.surgery.graph import ChannelGraph
    from seg_pruning.surgery.plan import Plan

LatencyOf: TypeAlias = "Callable[[Vector], float]"
"""Gives milliseconds for widths as `graph.widths` gives them: the kept channels of each of `graph.prunable`,
and behind them the kept branches of each of `graph.branches`. Never more for fewer channels."""


@dataclass(frozen=True)
class Amounts:
    """Amounts of one network, or limits of them: None where one is not known, or does not matter.

    Attributes:
        params: parameters.
        macs: multiply-accumulates of one pass of the example inputs.
        channels: channels of the groups that can be pruned, or could before earlier cuts.
        memory: bytes of activations that live at once in that pass; see `CostModel.memory`.
        latency_ms: milliseconds of one pass.
    """

    params: int
    macs: int
    channels: int
    memory: int | None = None
    latency_ms: float | None = None

    def __repr__(self) -> str:
        return f"Amounts({', '.join(f'{name}={value!r}' for name, value in self.known.items())})"

    @property
    def known(self) -> dict[str, float]:
        """The amounts that are known, by name."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}

    def within(self, limit: Amounts) -> bool:
        """Whether none of the amounts is above the limit's.

        >>> Amounts(10, 20, 4, memory=5).within(Amounts(10, 30, 4))
        True
        """
        return not self.above(limit)

    def above(self, limit: Amounts) -> tuple[str, ...]:
        """The amounts that are above the limit's, or are limited and not known."""
        mine = self.known
        return tuple(name for name, most in limit.known.items() if mine.get(name, math.inf) > most)


@dataclass(frozen=True)
class Meter:
    """Reads the amounts of a graph at any widths.

    Attributes:
        graph: the groups.
        dropped: modules that never run and are gone as a whole.
        dense: dense width of each group: one that has since shrunk to a single channel still counts as that.
        latency: milliseconds at given widths.
    """

    graph: ChannelGraph
    dropped: tuple[str, ...] = ()
    dense: Mapping[str, int] | None = None
    latency: LatencyOf | None = None

    @property
    def whole(self) -> Vector:
        """The present width of each prunable group, and the number of branches of each set of them."""
        return self.graph.whole

    def widths(self, plan: Plan) -> Vector:
        """How many channels of each prunable group `plan` keeps, and how many branches of each set."""
        return self.graph.widths(plan)

    @property
    def amounts(self) -> Mapping[str, Callable[[Vector], float]]:
        """Each amount as a function of widths, as `widths` gives them."""
        costs, idle, narrow = self.graph.costs, self._idle(), self._narrow()
        groups = len(self.graph.prunable)
        found: dict[str, Callable[[Vector], float]] = {
            "params": lambda kept: costs.params(kept) - idle,
            "macs": costs.macs,
            "channels": lambda kept: int(kept[:groups].sum()) + narrow,
            "memory": costs.memory,
        }
        return found if self.latency is None else {**found, "latency_ms": self.latency}

    def read(self, kept: Vector) -> Amounts:
        """All amounts at once."""
        return Amounts(**{name: amount(kept) for name, amount in self.amounts.items()})  # type: ignore[arg-type]

    def judge(self, limit: Amounts) -> Callable[[Vector], bool]:
        """Says of kept channels whether they are within `limit`; what always holds is not looked at again."""
        whole, amounts = self.whole, self.amounts
        binding = [
            (amounts[name], most)
            for name, most in limit.known.items()
            if name in amounts and amounts[name](whole) > most
        ]
        return lambda kept: all(amount(kept) <= most for amount, most in binding)

    def _idle(self) -> int:
        """Parameters of the modules that are dropped."""
        gone = tuple(f"{path}." for path in self.dropped)
        trace = self.graph.trace
        return sum(math.prod(trace.shapes[n]) for n in trace.parameters if gone and n.startswith(gone))

    def _narrow(self) -> int:
        """Channels that stay only because they are the last of their group or block."""
        dense = self.dense or {}
        last = sum(
            group.size
            for group in self.graph.groups
            if not group.prunable
            and (group.reason == SINGLE_CHANNEL or group.size < dense.get(group.name, group.size))
        )
        # A group of one channel is no group any more: no dim of size 1 is labelled.
        return last + sum(name not in self.graph.by_name for name in dense)


def amounts(
    graph: ChannelGraph,
    kept: Vector | None = None,
    *,
    dropped: Sequence[str] = (),
    dense: Mapping[str, int] | None = None,
    latency: LatencyOf | None = None,
) -> Amounts:
    """What the network costs when `graph.prunable[i]` keeps `kept[i]` channels; all of them by default.

    Args:
        graph: the groups.
        kept: kept channels of each prunable group.
        dropped: modules that never run and are gone as a whole.
        dense: width of each group of the dense network, where earlier cuts have narrowed it since: groups
            that shrank to one channel keep counting.
        latency: milliseconds at given widths; without it there is no `latency_ms`.
    """
    meter = Meter(graph, tuple(dropped), dense, latency)
    return meter.read(meter.whole if kept is None else kept)


@dataclass(frozen=True)
class Spent:
    """What became of one amount of a budget.

    Attributes:
        asked: the most that was allowed.
        predicted: what the plan was to cost, known before anything was cut.
        got: what was counted or measured on the pruned network.
    """

    asked: float
    predicted: float
    got: float


def spent(limit: Amounts, predicted: Amounts, got: Amounts, names: Iterable[str]) -> dict[str, Spent]:
    """Asked, predicted and got side by side, for each amount of `names` that is limited.

    Example:
        >>> spent(Amounts(50, 7, 4), Amounts(49, 5, 3), Amounts(49, 5, 3), ["params"])
        {'params': Spent(asked=50, predicted=49, got=49)}
    """
    asked, foretold, found = limit.known, predicted.known, got.known
    return {name: Spent(asked[name], foretold[name], found[name]) for name in names if name in asked}


def shortfall(smallest: Amounts, limit: Amounts, present: Amounts) -> str:
    """The amounts whose smallest value is above the limit, and the nearest limit that is not, in words.

    Example:
        >>> print(shortfall(Amounts(30, 5, 4), Amounts(20, 8, 8), present=Amounts(120, 10, 8)))
        the smallest reachable is 30 params (25.0 % of the present 120), above the limit of 20;
        the nearest feasible budget is {'params': 30, 'macs': 8}
    """
    least, most, now = smallest.known, limit.known, present.known
    parts = [
        f"the smallest reachable is {_shown(least[name])} {name} "
        f"({100 * least[name] / now[name]:.1f} % of the present {_shown(now[name])}), "
        f"above the limit of {_shown(most[name])}"
        for name in smallest.above(limit)
    ]
    nearest = {
        name: value if isinstance(value := max(most[name], least[name]), int) else round(value + 5e-3, 2)
        for name in most
        if min(most[name], least[name]) < now[name] > most[name]
    }
    return "; ".join(parts) + f"; the nearest feasible budget is {nearest}"


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
