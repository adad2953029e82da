"""The tables and the figure of what `python -m benchmarks.recovery` found.

    python -m benchmarks.recovery.page FOLDER [--size 128] [--figure FILE] [--control ARM]

FOLDER holds the files of the runs. Differences are paired by image, seeds averaged first; their standard
errors are over images. They are to the dense network that was trained as much longer, or to ARM at the same
budget, over the seeds that both have.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.recovery.arms import ARMS, BUDGETS, CONTROLS, UNTRAINED, Budget
from benchmarks.recovery.lines import Line, line, read, title

CONTROL = next(iter(CONTROLS))
_COLUMNS = ("arm", "params", "MACs", "time", "Dice of each seed", "mean", "val", "tuned", "difference")


def main() -> None:
    """Prints the tables, and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--control", default=CONTROL, choices=ARMS, metavar="ARM")
    given = parser.parse_args()
    rows = read(given.folder)[given.size]
    dense = rows[CONTROL, BUDGETS[0]]
    control = line(dense, dense)
    bases = {budget: rows.get((given.control, budget), {}) for budget in BUDGETS}
    if given.control == CONTROL:
        bases = dict.fromkeys(BUDGETS, dense)  # it has no budget of its own
    lines = {key: line(found, bases[key[1]]) for key, found in rows.items() if key[0] != CONTROL}
    print(tables(lines, control))
    if given.figure is not None:
        from benchmarks.recovery.figure import draw  # here: it needs the extra `plot`

        draw(lines, control, given.figure)


def tables(lines: Mapping[tuple[str, Budget], Line], control: Line) -> str:
    """Markdown: tables for each budget, the best arm first; a dash where a seed was not run."""
    seeds = sorted({seed for one in (control, *lines.values()) for seed in one.dice})
    parts = [f"{CONTROL}: Dice {_seeds(control, seeds)}, mean {control.mean:.3f} ({control.error:.3f})"]
    for budget in BUDGETS:
        for what, here in (("", False), (", before any training", True)):
            chosen = {
                name: one for (name, of), one in lines.items() if of == budget and (name in UNTRAINED) is here
            }
            parts += _table(f"{title(budget)}{what}", chosen, seeds) if chosen else []
    return "\n".join(parts)


def _table(title: str, lines: Mapping[str, Line], seeds: Sequence[int]) -> list[str]:
    ordered = sorted(lines, key=lambda name: -lines[name].mean)
    head = ["", f"**{title}**", "", _row(*_COLUMNS), _row(*["---"] * len(_COLUMNS))]
    return head + [written(name, lines[name], seeds) for name in ordered]


def written(name: str, one: Line, seeds: Sequence[int]) -> str:
    """A row."""
    return _row(
        name,
        f"{one.params / 1e6:.2f} M",
        f"{one.macs / 1e6:,.0f} M",
        f"{one.latency:.0%}",
        _seeds(one, seeds),
        f"{one.mean:.3f}",
        f"{one.val:.3f}",
        f"{one.tuned:.3f}",
        f"{one.gap[0]:+.3f} ({one.gap[1]:.3f})",
    )


def _seeds(one: Line, seeds: Sequence[int]) -> str:
    return " / ".join(f"{one.dice[seed]:.3f}" if seed in one.dice else "-" for seed in seeds)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
