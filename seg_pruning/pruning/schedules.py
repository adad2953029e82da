"""When how much leaves: pure functions of floats, and the epochs or steps at which a cut is due.

A schedule takes the progress in [0, 1] (0 before the first cut, 1 at the last) and the fraction kept in the
end, and gives the fraction of the way from nothing removed to all of it: 0 at 0, 1 at 1, never falling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, TypeAlias

from seg_pruning.pruning.names import choose
from seg_pruning.surgery.errors import PruningError

Unit: TypeAlias = Literal["epoch", "step"]
"""What times are counted in: epochs, or steps of the optimizer; from 0."""

Schedule = Callable[[float, float], float]
"""(progress, fraction kept in the end) -> fraction of the way; only `exponential` looks at the second."""


def one_shot(progress: float, kept: float = 0.1) -> float:
    """All at the first cut: 0 at progress 0, where nothing was cut yet, and 1 from there on.

    Example:
        >>> one_shot(0.0), one_shot(0.01)
        (0.0, 1.0)
    """
    return float(progress > 0)


def linear(progress: float, kept: float = 0.1) -> float:
    """The same amount at each cut.

    Example:
        >>> linear(0.25)
        0.25
    """
    return float(progress)


def cubic(progress: float, kept: float = 0.1) -> float:
    """Much at first, little at the end: 1 - (1 - progress)^3.

    Automated gradual pruning, Zhu & Gupta 2017 (https://arxiv.org/abs/1710.01878), from nothing removed.

    Example:
        >>> cubic(0.5)
        0.875
    """
    return 1.0 - (1.0 - progress) ** 3


def exponential(progress: float, kept: float = 0.1) -> float:
    """The same fraction of what is left at each cut: `kept ** progress` stays.

    Example:
        >>> 1 - exponential(0.5, kept=0.25) * (1 - 0.25)  # half the way to a quarter: one half
        0.5
    """
    if kept >= 1:
        return linear(progress)
    return (1.0 - math.pow(kept, progress)) / (1.0 - kept)


SCHEDULES: Mapping[str, Schedule] = MappingProxyType(
    {"one_shot": one_shot, "linear": linear, "cubic": cubic, "exponential": exponential}
)


def get(schedule: str | Schedule) -> Schedule:
    """The schedule called so; a function is its own answer.

    Raises:
        PruningError: No schedule has this name.
    """
    return choose(SCHEDULES, schedule, kind="schedule") if isinstance(schedule, str) else schedule


def target(kept: float, progress: float, *, schedule: str | Schedule = "cubic") -> float:
    """Fraction kept after the cut at `progress`, on the way from 1 to `kept`.

    Args:
        kept: Fraction kept in the end, in (0, 1].
        progress: In [0, 1]; see `progress_at`.
        schedule: A name of `SCHEDULES`, or a function like them.

    Raises:
        PruningError: `kept` or `progress` is out of range, or no schedule has this name.

    Example:
        >>> target(0.2, 0.5, schedule="linear")
        0.6
    """
    way = get(schedule)
    if not 0 < kept <= 1:
        raise PruningError(f"expected the fraction kept to be above 0 and at most 1, but got {kept}")
    if not 0 <= progress <= 1:
        raise PruningError(f"expected the progress to be in [0, 1], but got {progress}")
    if progress == 1:
        return kept  # exactly, not up to a rounding
    return 1.0 - (1.0 - kept) * float(way(progress, kept))


def events(
    start_epoch: int,
    every_n_epochs: int,
    end_epoch: int | None,
    max_epochs: int | None,
    *,
    unit: Unit = "epoch",
) -> tuple[int, ...]:
    """Epochs, counted from 0, at whose start a cut is due; or optimizer steps, before which it is.

    Args:
        start_epoch: The first of them; that many epochs are trained before it.
        every_n_epochs: From one to the next.
        end_epoch: None is later than this; `None` for a single cut.
        max_epochs: Epochs of the whole training; `None` or -1 where it has no such end.
        unit: With "step" all four are numbers of optimizer steps, and errors say so.

    Returns:
        `start_epoch`, `start_epoch + every_n_epochs`, ... up to `end_epoch`. After the last of them at least
        one whole epoch is trained.

    Raises:
        PruningError: A value is out of range, or no epoch of recovery would remain.

    Example:
        >>> events(5, 2, 10, 20)
        (5, 7, 9)
    """
    end = start_epoch if end_epoch is None else end_epoch
    # The interval first: where cuts are by step, the start is one interval unless another was given.
    given = {f"every_n_{unit}s": every_n_epochs, f"start_{unit}": start_epoch, f"end_{unit}": end}
    for name, value in given.items():
        if type(value) is not int:
            raise PruningError(f"expected {name} to be a whole number, but got {value!r}")
    if every_n_epochs < 1:
        raise PruningError(f"expected every_n_{unit}s to be 1 or more, but got {every_n_epochs}")
    if start_epoch < 0:
        raise PruningError(f"expected start_{unit} to be 0 or more, but got {start_epoch}")
    if end < start_epoch:
        raise PruningError(
            f"expected end_{unit} to be start_{unit}={start_epoch} or later, but got {end_epoch}: "
            "end later or start sooner"
        )
    due = tuple(range(start_epoch, end + 1, every_n_epochs))
    if max_epochs is not None and max_epochs >= 0 and due[-1] >= max_epochs:
        raise PruningError(
            f"the last cut would be at the start of {unit} {due[-1]} (counted from 0) of {max_epochs}, which "
            f"leaves no {unit} to recover: choose max_{unit}s={due[-1] + 1} or more, "
            f"or start_{unit} and end_{unit} below {max_epochs}"
        )
    return due


def progress_at(epoch: int, due: Sequence[int]) -> float:
    """Fraction of the cuts in `due` that are done after the start of `epoch`; 1 from the last one on.

    Steps count in the same way.

    Example:
        >>> [progress_at(epoch, (5, 7)) for epoch in (4, 5, 6, 7, 8)]
        [0.0, 0.5, 0.5, 1.0, 1.0]
    """
    if not due:
        raise PruningError("expected at least one epoch or step with a cut, but got none")
    return math.fsum(event <= epoch for event in due) / len(due)
