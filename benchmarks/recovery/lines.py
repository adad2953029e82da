"""What a few seeds of an arm came to."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recovery.arms import Budget
from benchmarks.recovery.job import THRESHOLDS

HALF = THRESHOLDS.index(0.5)

Row = Mapping[str, Any]
Rows = Mapping[tuple[str, Budget], Mapping[int, Row]]


@dataclass(frozen=True)
class Line:
    """One arm at one budget over its seeds.

    Attributes:
        params: mean over seeds.
        macs: mean over seeds.
        latency: the same, relative to the dense network.
        dice: by seed, at threshold 0.5, mean over test images.
        tuned: the same at the threshold that is best on validation images.
        val: mean Dice of the validation images at 0.5.
        gap: mean difference to the control and its standard error over images.
        error: standard error of Dice over images, seeds averaged first.
    """

    params: float
    macs: float
    latency: float
    dice: Mapping[int, float]
    tuned: float
    val: float
    gap: tuple[float, float]
    error: float

    @property
    def mean(self) -> float:
        """Dice over seeds."""
        return float(np.mean(list(self.dice.values())))


def read(folder: Path) -> dict[int, Rows]:
    """The rows of each image size, by arm and budget, then by seed."""
    found: dict[int, dict] = defaultdict(lambda: defaultdict(dict))
    for file in sorted(folder.glob("*.json")):
        row = json.loads(file.read_text())
        found[row["size"]][row["name"], tuple(row["budget"])][row["seed"]] = row
    return found


def line(rows: Mapping[int, Row], control: Mapping[int, Row]) -> Line:
    """Sums up the seeds of an arm."""
    seeds = sorted(rows)

    def mean(name: str) -> float:
        return float(np.mean([rows[seed][name] for seed in seeds]))

    return Line(
        params=mean("params"),
        macs=mean("macs"),
        latency=mean("latency"),
        dice={seed: float(np.mean(rows[seed]["test"])) for seed in seeds},
        tuned=mean("tuned"),
        val=float(np.mean([rows[seed]["val"][HALF] for seed in seeds])),
        gap=paired(rows, control),
        error=standard_error(np.mean([rows[seed]["test"] for seed in seeds], axis=0)),
    )


def paired(rows: Mapping[int, Row], control: Mapping[int, Row]) -> tuple[float, float]:
    """Mean difference in Dice and its standard error over images, seeds averaged first."""
    shared = sorted(set(rows) & set(control))
    if not shared:
        return float("nan"), float("nan")
    gaps = np.mean([np.subtract(rows[seed]["test"], control[seed]["test"]) for seed in shared], axis=0)
    return float(gaps.mean()), standard_error(gaps)


def standard_error(values: np.ndarray) -> float:
    """Of the mean of `values`."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def title(budget: Budget) -> str:
    """A budget in words."""
    return f"{budget[1]:.0%} of the {'MACs' if budget[0] == 'macs' else 'parameters'} kept"
