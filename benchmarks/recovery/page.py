"""The tables and the figure of what `python -m benchmarks.recovery` found.

    python -m benchmarks.recovery.page FOLDER [--size 128] [--figure FILE]

FOLDER holds the files of the runs. Differences to the control are paired by image, seeds averaged first; the
standard errors are over images.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from benchmarks.recovery.arms import BUDGETS, CONTROLS, Budget
from benchmarks.recovery.lines import Line, line, read, title

CONTROL = next(iter(CONTROLS))
_COLUMNS = ("arm", "params", "MACs", "time", "Dice of each seed", "mean", "at the threshold", "difference")


def main() -> None:
    """Prints the tables, and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    rows = read(given.folder)[given.size]
    base = rows[CONTROL, BUDGETS[0]]
    control = line(base, base)
    lines = {key: line(found, base) for key, found in rows.items() if key[0] != CONTROL}
    print(tables(lines, control))
    if given.figure is not None:
        from benchmarks.recovery.figure import draw  # here: it needs the extra `plot`

        draw(lines, control, given.figure)


def tables(lines: Mapping[tuple[str, Budget], Line], control: Line) -> str:
    """Markdown: a table for each budget, the best arm first."""
    parts = [f"{CONTROL}: Dice {_seeds(control)}, mean {control.mean:.3f} ({control.error:.3f})"]
    for budget in BUDGETS:
        of_budget = {name: one for (name, of), one in lines.items() if of == budget}
        if of_budget:
            parts += ["", f"**{title(budget)}**", "", _row(*_COLUMNS), _row(*["---"] * len(_COLUMNS))]
        for name in sorted(of_budget, key=lambda name: -of_budget[name].mean):
            parts.append(written(name, of_budget[name]))
    return "\n".join(parts)


def written(name: str, one: Line) -> str:
    """A row."""
    return _row(
        name,
        f"{one.params / 1e6:.2f} M",
        f"{one.macs / 1e6:,.0f} M",
        f"{one.latency:.0%}",
        _seeds(one),
        f"{one.mean:.3f}",
        f"{one.tuned:.3f}",
        f"{one.gap[0]:+.3f} ({one.gap[1]:.3f})",
    )


def _seeds(one: Line) -> str:
    return " / ".join(f"{value:.3f}" for value in one.dice)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
