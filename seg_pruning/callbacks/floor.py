"""A floor on the metric, and the search for the smallest network that keeps above it: pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from seg_pruning.pruning.budgets import Amounts
from seg_pruning.surgery.errors import PruningError

HALVINGS = 3
"""How often a step that broke the promise is halved: pruning ends within an eighth of it."""

_KINDS = ("min", "max_drop")


@dataclass(frozen=True)
class Floor:
    """What metrics of validation, of which more is better, must not fall below.

    Attributes:
        min: smallest value of each metric, by the name under which the module logs it.
        max_drop: how far each metric may fall below that of the dense network, 0 or more, in its own units:
            0.01 of a Dice of 0.85 allows 0.84.
    """

    min: Mapping[str, float] = field(default_factory=dict)
    max_drop: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind in _KINDS:
            for name, value in getattr(self, kind).items():
                if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
                    raise PruningError(f"expected {kind} of {name!r} to be a number, but got {value!r}")
                if kind == "max_drop" and value < 0:
                    raise PruningError(f"expected max_drop of {name!r} to be 0 or more, but got {value!r}")

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that are looked at."""
        return tuple(dict.fromkeys((*self.min, *self.max_drop)))

    def broken(self, now: Mapping[str, float], dense: Mapping[str, float]) -> tuple[str, ...]:
        """The promises that `now` breaks, in words; a value that is not a number breaks its own.

        Example:
            >>> Floor(max_drop={"val/dice": 0.01}).broken({"val/dice": 0.83}, {"val/dice": 0.85})
            ('val/dice is 0.8300, below 0.8400',)
        """
        limits = [*self.min.items(), *((name, dense[name] - drop) for name, drop in self.max_drop.items())]
        return tuple(
            f"{name} is {now[name]:.4f}, below {limit:.4f}"
            for name, limit in limits
            if not now[name] >= limit
        )


def split(budget: Mapping[str, Any]) -> tuple[dict[str, Any], Floor | None]:
    """The amounts and the floor of a budget such as `{"macs": 0.1, "max_drop": {"val/dice": 0.01}}`.

    Raises:
        PruningError: the budget or the floor is no mapping, or the floor stands alone: something has to say
            how far to go at most.

    Example:
        >>> split({"macs": 0.1, "min": {"val/dice": 0.8}})
        ({'macs': 0.1}, Floor(min={'val/dice': 0.8}, max_drop={}))
    """
    if not isinstance(budget, Mapping):
        raise PruningError(f"a budget is a mapping such as {{'macs': 0.3}}, but got {budget!r}")
    floors = {kind: budget[kind] for kind in _KINDS if budget.get(kind) is not None}
    amounts = {name: value for name, value in budget.items() if name not in _KINDS}
    for kind, values in floors.items():
        if not isinstance(values, Mapping) or not values:
            raise PruningError(
                f"expected {kind} to be a mapping such as {{'val/dice': 0.01}}, but got {values!r}"
            )
    if floors and not amounts:
        raise PruningError(
            f"the budget holds only {', '.join(floors)}: say also how far to go where the metric allows it, "
            "such as {'params': 0.05}"
        )
    return amounts, Floor(**floors) if floors else None


@dataclass(frozen=True)
class Search:
    """How far the network has come towards the smallest one that keeps the promise.

    Attributes:
        good: the limit of the smallest network that kept it; at first that of the dense one.
        trying: the limit of the cut that is not judged yet.
        bad: the limit of the largest network that broke it.
        planned: cuts of the schedule that kept it.
        halvings: cuts that were tried between `good` and `bad`.
        over: whether nothing more is tried.
    """

    good: Amounts
    trying: Amounts | None = None
    bad: Amounts | None = None
    planned: int = 0
    halvings: int = 0
    over: bool = False

    def tried(self, planned: Amounts) -> Search:
        """With the next limit on trial: `planned`, or halfway to the one that broke the promise."""
        if self.bad is None:
            return replace(self, trying=planned)
        return replace(self, trying=halfway(self.good, self.bad), halvings=self.halvings + 1)

    def judged(self, *, kept: bool, of: int) -> Search:
        """After the verdict on the limit on trial, of a schedule with `of` cuts."""
        assert self.trying is not None
        if kept:
            done = self.planned + (self.bad is None)
            found = replace(self, good=self.trying, trying=None, planned=done)
        else:
            found = replace(self, bad=self.trying, trying=None)
        reached = found.bad is None and found.planned >= of
        return replace(found, over=reached or found.halvings >= HALVINGS)

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Search:
        """The search that `to_dict` gave."""
        limits = {
            name: None if data[name] is None else Amounts(**data[name]) for name in ("good", "trying", "bad")
        }
        return cls(**{**data, **limits})


def halfway(good: Amounts, bad: Amounts) -> Amounts:
    """The limit in the middle of two.

    Example:
        >>> halfway(Amounts(params=10, macs=40, channels=8), Amounts(params=5, macs=20, channels=8))
        Amounts(params=7, macs=30, channels=8)
    """
    one, other = asdict(good), asdict(bad)
    return Amounts(**{name: _middle(one[name], other[name]) for name in one})


def _middle(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return one if other is None else other
    return (one + other) // 2 if isinstance(one, int) and isinstance(other, int) else (one + other) / 2
