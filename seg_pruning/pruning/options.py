"""How channels are chosen, whatever the criterion: the options of a selection."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Literal, TypeAlias, get_args

import torch

from seg_pruning.pruning.protection import names_of
from seg_pruning.surgery.errors import PruningError

Scope: TypeAlias = Literal["global", "local"]
Normalise: TypeAlias = Literal["none", "mean", "l2"]
Per: TypeAlias = Literal["channel", "params", "macs", "latency"]
RoundTo: TypeAlias = int | Literal["auto"]
Bounds: TypeAlias = Mapping[str, float]

FLOOR = 0.05
"""The fraction of a group's dense width that stays where nothing else is said."""


@dataclass(frozen=True)
class Selection:
    """How channels are chosen, whatever the criterion.

    Attributes:
        scope: "global" ranks all channels together; "local" takes the same fraction of each group.
        normalise: what the scores of a group are divided by before groups are compared: nothing, their mean
            magnitude, or their L2 norm. Local scope never compares groups.
        per: what a score is counted against: "channel" takes it as it is; "params", "macs" and "latency"
            divide it by what the first step of its group saves of them, so that of two channels of equal
            score the one that saves more leaves first. Local scope ignores it.
        round_to: widths stay multiples of this, or whole. "auto" is what pays on the device; see `resolved`.
        floor: fraction of the dense width that always stays, in [0, 1); at least one channel stays anyway. Or
            a mapping from names and patterns as in `protect` to fractions in [0, 1] or widths, whole numbers
            above 1; where several match the largest counts, where none does 0.05.
        head_floor: the same for groups that feed the outputs, as long as the budget can be reached with it
            and no ceiling is below. What is left of them decides the sign of every answer: ranked with all
            others, they can lose every channel that speaks for the foreground. Local scope never starves a
            group and ignores it.
        ceiling: the most that a group keeps, as a mapping like that of `floor`; where several match the
            smallest counts. What is above leaves even where the budget would have room. Of groups that
            cannot be pruned it asks nothing.
        protect: names of groups, layers or modules, or patterns such as `"head.*"`, that keep their width.
    """

    scope: Scope = "global"
    normalise: Normalise = "mean"
    per: Per = "channel"
    round_to: RoundTo = "auto"
    floor: float | Bounds = FLOOR
    head_floor: float = 0.5
    ceiling: Bounds = field(default_factory=dict)
    protect: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, legal in (("scope", Scope), ("normalise", Normalise), ("per", Per)):
            if getattr(self, name) not in get_args(legal):
                raise PruningError(
                    f"expected {name} to be one of {get_args(legal)}, but got {getattr(self, name)!r}"
                )
        if self.round_to != "auto" and (type(self.round_to) is not int or self.round_to < 1):
            raise PruningError(
                f'expected round_to to be a whole number of 1 or more, or "auto", but got {self.round_to!r}'
            )
        object.__setattr__(self, "floor", _floor("floor", self.floor))
        _fraction("head_floor", self.head_floor)
        object.__setattr__(self, "ceiling", _bounds("ceiling", self.ceiling))
        object.__setattr__(self, "protect", names_of(self.protect))

    @property
    def default_floor(self) -> float:
        """The floor of groups that no pattern names."""
        return FLOOR if isinstance(self.floor, Mapping) else self.floor

    @property
    def multiple(self) -> int:
        """What widths are multiples of; 1 where that was left open and no device was named."""
        return 1 if self.round_to == "auto" else self.round_to

    def resolved(
        self, device: torch.device | str, dtype: torch.dtype = torch.float32, *, timed: bool = False
    ) -> Selection:
        """The same options with a `round_to` for `device`, where it was left open.

        8 on CUDA in half precision, where tensor cores compute in tiles of 8 channels. On a CPU 8 where time
        is in the budget, since vector units take 8 or 16 floats at once: ``python -m benchmarks.scores`` says
        what that spares at the same MACs. Else 1, which spends a budget of params or MACs best.

        Args:
            device: where the network will run.
            dtype: what it will compute in.
            timed: whether a latency is asked for.

        Example:
            >>> Selection().resolved("cpu").round_to, Selection().resolved("cpu", timed=True).round_to
            (1, 8)
        """
        if self.round_to != "auto":
            return self
        kind, half = torch.device(device).type, dtype in (torch.float16, torch.bfloat16)
        pays = (kind == "cuda" and half) or (kind == "cpu" and timed)
        return replace(self, round_to=8 if pays else 1)


_BOUNDS = (
    "a mapping of names or patterns to fractions in [0, 1] or widths, whole numbers above 1, such as "
    '{"decoder.*": 0.25, "encoder.layer4.*": 64}'
)


def _floor(name: str, floor: float | Bounds) -> float | Bounds:
    return _bounds(name, floor) if isinstance(floor, Mapping) else _fraction(name, floor)


def _fraction(name: str, value: float) -> float:
    if not (_is_number(value) and 0 <= value < 1):
        raise PruningError(f"expected {name} to be at least 0 and below 1, but got {value!r}")
    return value


def _bounds(name: str, bounds: Bounds) -> dict[str, float]:
    if not isinstance(bounds, Mapping) or not all(isinstance(key, str) and key for key in bounds):
        raise PruningError(f"expected {name} to be {_BOUNDS}, but got {bounds!r}")
    wrong = {pattern: value for pattern, value in bounds.items() if not _is_bound(value)}
    if wrong:
        raise PruningError(f"expected {name} to be {_BOUNDS}, but got {wrong}")
    return dict(bounds)


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(float(value))


def _is_bound(value: float) -> bool:
    return _is_number(value) and (0 <= value <= 1 or (value > 1 and float(value).is_integer()))
