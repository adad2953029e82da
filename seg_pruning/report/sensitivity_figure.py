"""Sensitivity as a picture: groups by ratios, the drop of the metric as colour and number."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from seg_pruning.pruning.sensitivity_record import SensitivityRow
from seg_pruning.surgery.errors import PruningError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_plotting() -> None:
    """Passes when there is what draws.

    Raises:
        PruningError: matplotlib is not installed; names the extra that brings it.
    """
    try:
        import matplotlib  # noqa: F401 - an extra
    except ImportError as error:
        raise PruningError(
            "the picture needs matplotlib, which is not installed: pip install 'seg-pruning[plot]', or do "
            "without with --picture false"
        ) from error


def save_figure(rows: Sequence[SensitivityRow], path: str | Path, *, metric: str) -> None:
    """Draws `rows` and writes the picture.

    Args:
        rows: what was measured.
        path: the file; its suffix says the format: ``.png``, ``.svg``, ``.pdf``.
        metric: the name of the metric.

    Raises:
        PruningError: matplotlib is not installed, or there are no rows.
    """
    check_plotting()
    sensitivity_figure(rows, metric=metric).savefig(path, dpi=150, bbox_inches="tight")


def sensitivity_figure(rows: Sequence[SensitivityRow], *, metric: str) -> "Figure":
    """A heat map: a line for each group in the order of the network, a column for each ratio.

    The colours start at no drop: what gets better is as pale as what does not change, and the number tells.
    They follow the square root of the drop, or a few groups that break the network would hide all others.

    Args:
        rows: what was measured.
        metric: the name of the metric.

    Raises:
        PruningError: there are no rows.
    """
    if not rows:
        raise PruningError("there is nothing to draw: no group was measured")
    from matplotlib.colors import PowerNorm  # here: an extra
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys((row.group, row.size) for row in rows))
    ratios = sorted({row.ratio for row in rows})
    drops = {(row.group, row.ratio): row.drop for row in rows}
    table = [[drops.get((name, ratio), math.nan) for ratio in ratios] for name, _ in groups]
    worst = max((drop for line in table for drop in line if math.isfinite(drop)), default=0.0)
    figure = Figure(figsize=(1.5 + 0.9 * len(ratios), 1.5 + 0.24 * len(groups)))
    axes = figure.subplots()
    scale = PowerNorm(0.5, vmin=0, vmax=max(worst, 1e-9), clip=True)
    image = axes.imshow(table, cmap="YlOrRd", norm=scale, aspect="auto")
    axes.set_xticks(range(len(ratios)), [f"{ratio:.0%}".replace("%", " %") for ratio in ratios])
    axes.set_yticks(range(len(groups)), [f"{name} ({size})" for name, size in groups], fontsize=7)
    axes.set_xlabel("channels removed, of one group alone")
    axes.set_title(f"drop of {metric}", loc="left")
    for at, line in enumerate(table):
        for column, drop in enumerate(line):
            colour = "white" if scale(max(drop, 0)) > 0.65 else "black"
            axes.text(column, at, _number(drop), ha="center", va="center", fontsize=6, color=colour)
    figure.colorbar(image, ax=axes, shrink=min(1.0, 12 / len(groups)))
    return figure


def _number(drop: float) -> str:
    """Three digits, and no minus before a zero."""
    return f"{round(drop, 3) + 0.0:.3f}" if math.isfinite(drop) else "?"
