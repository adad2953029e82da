"""The figure: Dice of each seed, a panel for each budget, a row for each arm."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.recovery.arms import BUDGETS, CRITERIA, PEERS, RECIPES, UNTRAINED, Budget
from benchmarks.recovery.lines import Line, title

COLOURS = {"criterion": "#1f6f8b", "recipe": "#2a9d4a", "peer": "#c8553d", "control": "#6b6b6b"}


def draw(lines: Mapping[tuple[str, Budget], Line], control: Line, file: Path) -> None:
    """Writes the figure of what was trained; arms are in the order of their mean over the budgets."""
    lines = {key: one for key, one in lines.items() if key[0] not in UNTRAINED}
    budgets = [budget for budget in BUDGETS if any(of == budget for _, of in lines)]
    names = sorted({name for name, _ in lines}, key=lambda name: _overall(lines, name))
    mpl.rcParams["svg.hashsalt"] = "recovery"  # the same figure is the same file
    figure = Figure(figsize=(3.5 + 2.6 * len(budgets), 1.4 + 0.24 * len(names)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(budgets), sharey=True))
    for at, budget in zip(axes, budgets, strict=True):
        _panel(at, {name: lines[name, budget] for name in names if (name, budget) in lines}, names, control)
        at.set_title(title(budget), fontsize=9)
    axes[0].set_yticks(range(len(names)), names, fontsize=8)
    figure.supxlabel(
        "Dice of the test images\nstrokes: seeds; dots: their mean, with the error of the difference\n"
        "to the dense network; line and band: that one and its error",
        fontsize=8,
    )
    figure.savefig(file, metadata={"Date": None})


def _overall(lines: Mapping[tuple[str, Budget], Line], name: str) -> float:
    return float(np.mean([one.mean for (of, _), one in lines.items() if of == name]))


def _panel(at: Axes, lines: Mapping[str, Line], names: list[str], control: Line) -> None:
    at.axvline(control.mean, color="#222222", linewidth=1)
    at.axvspan(control.mean - control.error, control.mean + control.error, color="#222222", alpha=0.08)
    for row, name in enumerate(names):
        if name not in lines:
            continue
        one, colour = lines[name], COLOURS[kind(name)]
        at.errorbar(one.mean, row, xerr=one.gap[1], color=colour, marker="o", markersize=5, linewidth=1)
        at.plot(
            list(one.dice.values()), [row] * len(one.dice), linestyle="", marker="|", color=colour, alpha=0.7
        )
    at.set_xlim(left=max(0.0, min((min(one.dice.values()) for one in lines.values()), default=0.0) - 0.02))
    at.grid(axis="x", alpha=0.3)
    at.tick_params(labelsize=8)


def kind(name: str) -> str:
    """What sort of arm it is, for its colour."""
    if name in PEERS:
        return "peer"
    if name in RECIPES:
        return "recipe"
    return "criterion" if name in CRITERIA else "control"
