"""What a network may cost on its way from the dense one to the budget: pure."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from seg_pruning.pruning import schedules
from seg_pruning.pruning.budgets import Amounts


def limit_at(progress: float, dense: Amounts, final: Amounts, shape: str) -> Amounts:
    """The limit after the cut at `progress`, each amount by itself.

    Args:
        progress: in [0, 1]; see `schedules.progress_at`.
        dense: amounts of the dense network.
        final: amounts of the budget; one that is not below the dense one does not bind.
        shape: name of the schedule.

    Example:
        >>> limit_at(0.5, Amounts(100, 80, 10), Amounts(20, 80, 10), "linear")
        Amounts(params=60, macs=80, channels=10)
    """
    start, end = asdict(dense), asdict(final)
    return Amounts(**{name: _between(progress, start[name], end[name], shape) for name in end})


def _between(progress: float, dense: Any, final: Any, shape: str) -> Any:
    if final is None or not dense or not 0 < final < dense or progress == 1:
        return final
    # Rounded first: 0.29 * 100 is a hair below 29, and 29 are meant.
    wanted = round(schedules.target(final / dense, progress, schedule=shape) * dense, 6)
    return math.floor(wanted) if isinstance(final, int) else wanted
