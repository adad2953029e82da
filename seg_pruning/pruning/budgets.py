"""What "small enough" is: how much of the dense network's parameters, MACs or channels is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from seg_pruning.pruning.names import choose
from seg_pruning.surgery.errors import PruningError

if TYPE_CHECKING:
    from seg_pruning.surgery.costs import Vector
    from seg_pruning.surgery.graph import ChannelGraph


@dataclass(frozen=True)
class Amounts:
    """Amounts of one network.

    Attributes:
        params: parameters.
        macs: multiply-accumulates of one pass of the example inputs.
        channels: channels of the groups that can be pruned.
    """

    params: int
    macs: int
    channels: int

    def within(self, limit: Amounts) -> bool:
        """Whether none of the amounts is above the limit's.

        >>> Amounts(10, 20, 4).within(Amounts(10, 30, 4))
        True
        """
        return all(getattr(self, f.name) <= getattr(limit, f.name) for f in fields(self))


@dataclass(frozen=True)
class Budget:
    """Fractions of the dense network that are kept, each in (0, 1]; several together must all hold.

    Attributes:
        params: of the parameters.
        macs: of the multiply-accumulates.
        channels: of the channels that can be pruned.
    """

    params: float = 1.0
    macs: float = 1.0
    channels: float = 1.0

    def __post_init__(self) -> None:
        for name, kept in self.fractions.items():
            if not _is_fraction(kept):
                raise PruningError(
                    f"budget {name}={kept!r} is no fraction kept: give a number above 0 and at most 1, "
                    "such as 0.3 to keep 30 %"
                )

    @classmethod
    def of(cls, budget: Mapping[str, float] | Budget) -> Budget:
        """Reads a budget such as `{"macs": 0.3}`.

        Raises:
            PruningError: it is empty, names no known amount, or a fraction is out of range.

        Example:
            >>> Budget.of({"macs": 0.3})
            Budget(params=1.0, macs=0.3, channels=1.0)
        """
        if isinstance(budget, Budget):
            return budget
        known = {f.name: f.name for f in fields(cls)}
        if not isinstance(budget, Mapping) or not budget:
            raise PruningError(
                f"a budget is a mapping such as {{'macs': 0.3}} of {', '.join(known)}; got {budget!r}"
            )
        for name in budget:
            choose(known, name, kind="budget")
        return cls(**budget)

    @property
    def fractions(self) -> dict[str, float]:
        """The fraction kept of each amount."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def limit(self, dense: Amounts) -> Amounts:
        """The budget in amounts, given those of the dense network.

        Example:
            >>> Budget(params=0.5).limit(Amounts(params=101, macs=7, channels=4))
            Amounts(params=50, macs=7, channels=4)
        """
        # Rounded first: 0.29 * 100 is a hair below 29, and 29 are meant.
        return Amounts(
            **{
                name: math.floor(round(kept * getattr(dense, name), 6))
                for name, kept in self.fractions.items()
            }
        )


def _is_fraction(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and 0 < float(value) <= 1


def amounts(graph: ChannelGraph, kept: Vector | None = None, *, dropped: Sequence[str] = ()) -> Amounts:
    """What the network costs when `graph.prunable[i]` keeps `kept[i]` channels; all of them by default.

    Args:
        graph: the groups.
        kept: kept channels of each prunable group.
        dropped: modules that never run and are gone as a whole.
    """
    if kept is None:
        kept = np.array([group.size for group in graph.prunable], dtype=np.float64)
    gone = tuple(f"{path}." for path in dropped)
    idle = sum(math.prod(graph.trace.shapes[n]) for n in graph.trace.parameters if n.startswith(gone))
    return Amounts(graph.costs.params(kept) - idle, graph.costs.macs(kept), int(kept.sum()))


def shortfall(smallest: Amounts, limit: Amounts, present: Amounts) -> str:
    """The amounts whose smallest value is above the limit, in words.

    Example:
        >>> shortfall(Amounts(30, 5, 4), Amounts(20, 8, 8), present=Amounts(120, 10, 8))
        'the smallest reachable is 30 params (25.0 % of the present 120), above the limit of 20'
    """
    over = [f.name for f in fields(Amounts) if getattr(smallest, f.name) > getattr(limit, f.name)]
    return "; ".join(
        f"the smallest reachable is {(least := getattr(smallest, name)):,} {name} "
        f"({least / (now := getattr(present, name)):.1%} of the present {now:,})".replace("%", " %")
        + f", above the limit of {getattr(limit, name):,}"
        for name in over
    )
