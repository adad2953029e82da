"""What "small enough" is: a fraction or an absolute amount that is kept of what the dense network costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from seg_pruning.pruning.amounts import Amounts, amounts, shortfall
from seg_pruning.pruning.names import choose
from seg_pruning.surgery.errors import PruningError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("Amounts", "Budget", "amounts", "shortfall")

_Counted: TypeAlias = Literal["params", "macs", "channels", "memory"]
_FEWEST: Mapping[str, int] = {"params": 100, "macs": 100, "channels": 1, "memory": 100}
"""Amounts are above these: whoever writes 30 means percent, and there is no such network."""
_LEGAL: Mapping[str, str] = {
    **{
        name: "give a number above 0 and at most 1, such as 0.3 to keep 30 %, or a whole number above "
        f"{fewest}: an amount"
        for name, fewest in _FEWEST.items()
    },
    "latency": "give a number above 0 and at most 1; milliseconds are called latency_ms",
    "latency_ms": "give milliseconds, a number above 0",
}


@dataclass(frozen=True)
class Budget:
    """What is kept of each amount; several together must all hold. None where an amount does not matter.

    A number above 0 and at most 1 is a fraction of the dense network, 1 and 1.0 alike: all of it. A whole
    number above 1 is an absolute amount; of all but channels one above 100, since whoever asks for 30 means
    percent.

    Attributes:
        params: of the parameters.
        macs: of the multiply-accumulates of one pass of the example inputs.
        channels: of the channels that can be pruned.
        memory: of the bytes of activations that live at once in one pass of the example inputs.
        latency: of the time of one pass, as a fraction only.
        latency_ms: the time of one pass in milliseconds.
    """

    params: float | None = None
    macs: float | None = None
    channels: float | None = None
    memory: float | None = None
    latency: float | None = None
    latency_ms: float | None = None

    def __post_init__(self) -> None:
        for name, value in self.asked.items():
            if not _LEGAL_VALUES[name](value):
                raise PruningError(_refusal(name, value))

    @classmethod
    def of(cls, budget: Mapping[str, float] | Budget) -> Budget:
        """Reads a budget such as `{"macs": 0.3}` or `{"params": 1_000_000, "latency_ms": 20.0}`.

        Raises:
            PruningError: it is empty, names no known amount, or a number is out of range.

        Example:
            >>> Budget.of({"macs": 0.3}).asked
            {'macs': 0.3}
        """
        if isinstance(budget, Budget):
            return budget
        known = {f.name: f.name for f in fields(cls)}
        if not isinstance(budget, Mapping) or not budget:
            raise PruningError(
                f"a budget is a mapping such as {{'macs': 0.3}} of {', '.join(known)}; got {budget!r}"
            )
        for name, value in budget.items():
            choose(known, name, kind="budget")
            if value is None:
                raise PruningError(_refusal(name, value))
        return cls(**budget)

    @property
    def asked(self) -> dict[str, float]:
        """What was asked for, in the user's own numbers."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}

    @property
    def fractions(self) -> dict[str, float]:
        """The fraction kept of each amount that matters.

        Raises:
            PruningError: some are absolute; `relative` knows what fraction they are of a network.

        Example:
            >>> Budget(params=0.5).fractions
            {'params': 0.5}
        """
        absolute = {name: value for name, value in self.asked.items() if not _is_fraction(name, value)}
        if absolute:
            raise PruningError(f"budget {absolute} is no fraction; call relative(dense) first")
        return self.asked

    @property
    def names(self) -> tuple[str, ...]:
        """The amounts that matter, as `Amounts` calls them."""
        return tuple(dict.fromkeys("latency_ms" if n == "latency" else n for n in self.asked))

    @property
    def needs_latency(self) -> bool:
        """Whether time has to be measured."""
        return self.latency is not None or self.latency_ms is not None

    def relative(self, dense: Amounts) -> Budget:
        """The same budget in fractions of the amounts of the dense network.

        Raises:
            PruningError: a latency is asked for and the dense network's is not known.

        Example:
            >>> Budget(params=250, macs=0.3).relative(Amounts(params=1000, macs=100, channels=10)).asked
            {'params': 0.25, 'macs': 0.3}
        """
        limit = self.limit(dense)
        kept = {
            name: value if _is_fraction(name, value) else getattr(limit, name) / getattr(dense, name)
            for name, value in self.asked.items()
            if name not in ("latency", "latency_ms")
        }
        if limit.latency_ms is not None and dense.latency_ms is not None:
            kept["latency"] = min(1.0, limit.latency_ms / dense.latency_ms)
        return Budget(**kept)

    def limit(self, dense: Amounts) -> Amounts:
        """The budget in amounts, given those of the dense network.

        Raises:
            PruningError: a latency is asked for and the dense network's is not known, or as for memory.

        Example:
            >>> Budget(params=0.5).limit(Amounts(params=101, macs=7, channels=4))
            Amounts(params=50, macs=7, channels=4)
        """
        self._check_known(dense)
        counted = {name: _limit(name, self.asked.get(name), dense) for name in get_args(_Counted)}
        return Amounts(**counted, latency_ms=self._milliseconds(dense))  # type: ignore[arg-type]

    def _milliseconds(self, dense: Amounts) -> float | None:
        limits = [] if self.latency_ms is None else [float(self.latency_ms)]
        if self.latency is not None and dense.latency_ms is not None:
            limits.append(float(self.latency) * dense.latency_ms)
        return min(limits, default=None)

    def _check_known(self, dense: Amounts) -> None:
        if self.needs_latency and dense.latency_ms is None:
            raise PruningError(
                "a budget of latency needs the measured latency of the dense network: give "
                "amounts(graph, latency=latency_of(graph, model, inputs)) as dense"
            )
        if self.memory is not None and dense.memory is None:
            raise PruningError("a budget of memory needs the memory of the dense network; it is not known")


def _refusal(name: str, value: object) -> str:
    what = (
        "time"
        if name == "latency_ms"
        else "fraction kept"
        if name == "latency"
        else "fraction or amount kept"
    )
    return f"budget {name}={value!r} is no {what}: {_LEGAL[name]}"


def _limit(name: str, value: float | None, dense: Amounts) -> int | None:
    """One limit; of memory that nobody asked for there is none."""
    present: int | None = getattr(dense, name)
    if value is None or present is None:
        return present if name != "memory" else None
    # Rounded first: 0.29 * 100 is a hair below 29, and 29 are meant.
    amount = round(float(value) * present, 6) if _is_fraction(name, value) else value
    return min(present, math.floor(amount))


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(float(value))


def _is_fraction(name: str, value: float) -> bool:
    return name != "latency_ms" and _is_number(value) and 0 < float(value) <= 1


def _is_amount(name: str, value: float) -> bool:
    return _is_number(value) and value > _FEWEST[name] and float(value).is_integer()


def _is_counted(name: str) -> Callable[[float], bool]:
    return lambda value: _is_fraction(name, value) or _is_amount(name, value)


_LEGAL_VALUES: Mapping[str, Callable[[float], bool]] = {
    **{name: _is_counted(name) for name in get_args(_Counted)},
    "latency": lambda value: _is_fraction("", value),
    "latency_ms": lambda value: _is_number(value) and value > 0,
}
