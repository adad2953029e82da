"""Traces, cuts and compares every network of the zoo, and prints a table.

    python -m tests.zoo [--pairs PATTERN ...] [--json FILE]

Exit code 1 if a network that smp can build and run was cut wrongly, was refused, or keeps more than the
limits: 2 % of its parameters pinned with a plain convolutional encoder, 15 % with any.
"""

import argparse
import dataclasses
import json
import sys
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.zoo.check import Row, examine
from tests.zoo.networks import Case, cases
from tests.zoo.processes import Outcome, run_each


def main() -> int:
    """Runs the zoo; the exit code."""
    given = arguments()
    chosen = [case for case in cases() if any(fnmatch(str(case), p) for p in given.pairs)]
    if not chosen:
        sys.exit(f"no network of the zoo is called like {', '.join(given.pairs)}: 'unet resnet18' is one")
    console = Console(width=None if sys.stdout.isatty() else 200)
    found: dict[Case, Row] = {}
    with Progress(console=console) as progress:
        task = progress.add_task("zoo", total=len(chosen))
        for case, outcome in run_each(examine, chosen, workers=given.workers, limit_s=given.limit):
            found[case] = row_of(outcome)
            if found[case].problems or found[case].excess:
                progress.console.print(f"{case}: {verdict(found[case])}")
            progress.advance(task)
            if given.json is not None:
                write(given.json, chosen, found)
    print_all(console, {case: found[case] for case in chosen})
    return int(any(row.problems or row.excess for row in found.values()))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=["*"], help="like 'unet resnet18' or 'fpn *'")
    parser.add_argument("--json", type=Path, help="file to write the rows to, as they come")
    parser.add_argument("--workers", type=int, default=2, help="processes at once")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds that one network may take")
    return parser.parse_args()


def row_of(outcome: Outcome[Row]) -> Row:
    """The row of a case, also of one whose process gave none."""
    return outcome.answer if outcome.answer is not None else Row(problems=(outcome.reason,))


def write(file: Path, chosen: list[Case], found: dict[Case, Row]) -> None:
    """Rewrites `file` with all rows so far, in the order of the zoo."""
    rows = [dataclasses.asdict(c) | dataclasses.asdict(found[c]) for c in chosen if c in found]
    file.write_text(json.dumps(rows, indent=1) + "\n")


def print_all(console: Console, rows: dict[Case, Row]) -> None:
    """The table, what smp refuses, and the sums."""
    table = Table("network", "px", "groups", "pinned", "main reason", "error", "oracle", "s", "forwards", "")
    for case, row in rows.items():
        if not row.refusal:
            table.add_row(str(case), *cells(row))
    console.print(table)
    refusals = Counter(row.refusal.partition("\n")[0][:150] for row in rows.values() if row.refusal)
    for reason, count in refusals.most_common():
        names = [str(c) for c, row in rows.items() if row.refusal.partition("\n")[0][:150] == reason]
        console.print(f"{count} that smp refuses, {reason}: {', '.join(names)}", highlight=False)
    ran = [row for row in rows.values() if not row.refusal]
    bad, much = sum(bool(row.problems) for row in ran), sum(bool(row.excess) for row in ran)
    console.print(
        f"{len(ran)} networks, {bad} cut wrongly or refused, {much} with too much pinned; "
        f"{len(rows) - len(ran)} that smp refuses"
    )


def cells(row: Row) -> list[str]:
    """What the table says of a network."""
    return [
        str(row.side),
        "{} of {}".format(*row.groups),
        f"{row.pinned:.1%}",
        row.reason[:60],
        f"{row.error:.0e}",
        "" if row.oracle is None else f"{row.oracle:.0e}",
        f"{row.seconds:.1f}",
        f"{row.forwards:.0f}",
        verdict(row),
    ]


def verdict(row: Row) -> str:
    """What is wrong with a network, or ok."""
    return "; ".join(filter(None, (*row.problems, row.excess))) or "ok"


if __name__ == "__main__":
    sys.exit(main())
