"""What surgery costs, and what Torch-Pruning makes of the same networks; writes the page of the benchmarks.

    python -m benchmarks.surgery [--pairs PATTERN ...] [--json FILE] [--write FILE]

Needs Linux and the extra: pip install 'seg-pruning[benchmark]'. By default each decoder with each native
encoder of smp, and each timm encoder with unet or, where only that takes it, with dpt.
"""

import argparse
import dataclasses
import json
import shlex
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from benchmarks.measure import OURS, TOOLS, Found, Job, measure
from benchmarks.report import page, short
from tests.zoo.networks import DECODERS, NATIVE, TIMM, TIMM_PLAIN_VIT, Case, cases
from tests.zoo.processes import Outcome, run_each


def main() -> None:
    """Measures, and writes the page."""
    given = arguments()
    jobs = [Job(case, tool) for case in chosen(given.pairs) for tool in given.tools]
    found = read(given.json)
    waiting = [job for job in jobs if job not in found]
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("surgery", total=len(waiting))
        for job, outcome in run_each(measure, waiting, workers=given.workers, limit_s=given.limit):
            found[job] = found_of(outcome)
            result = found[job]
            problem = result.problem if result is not None else ""
            if problem and job.tool == OURS:
                progress.console.print(f"{job.case}: {short(problem)}")
            progress.advance(task)
            write(given.json, found)
    results: dict[Case, dict[str, Found]] = {}
    for job in jobs:
        if (one := found[job]) is not None:
            results.setdefault(job.case, {})[job.tool] = one
    text = page(results, command(given))
    given.write.write_text(text) if given.write is not None else print(text)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", nargs="+", help="like 'unet resnet18' or 'fpn *'; '*' for the whole zoo")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS, help="what is tried")
    parser.add_argument("--json", type=Path, help="file of all results; what it holds is not measured again")
    parser.add_argument("--write", type=Path, help="file for the page, instead of the terminal")
    parser.add_argument("--workers", type=int, default=1, help="processes at once; one for honest times")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for each tool and network")
    return parser.parse_args()


def command(given: argparse.Namespace) -> str:
    """What to call for the same page, less the files of this run."""
    options: list[str] = [] if given.pairs is None else ["--pairs", *given.pairs]
    options += [] if tuple(given.tools) == TOOLS else ["--tools", *given.tools]
    return shlex.join(["python", "-m", "benchmarks.surgery", *options, "--limit", f"{given.limit:g}"])


def chosen(patterns: list[str] | None) -> list[Case]:
    """The networks that are measured, in the order of the zoo."""
    if patterns is not None:
        return [case for case in cases() if any(fnmatch(str(case), pattern) for pattern in patterns)]
    native = [Case(decoder, encoder) for encoder in NATIVE for decoder in DECODERS]
    return native + [Case("dpt" if e in TIMM_PLAIN_VIT else "unet", e) for e in TIMM]


def found_of(outcome: Outcome[Found | None]) -> Found | None:
    """What was found, also where the process gave no answer."""
    return Found(problem=outcome.reason) if outcome.reason else outcome.answer


def read(file: Path | None) -> dict[Job, Found | None]:
    """The results that `file` holds."""
    if file is None or not file.exists():
        return {}
    found: dict[Job, Found | None] = {}
    for row in json.loads(file.read_text()):
        one = row["found"]
        if one is not None and one["memory"] is not None:
            one["memory"] = tuple(one["memory"])
        found[Job(Case(**row["case"]), row["tool"])] = None if one is None else Found(**one)
    return found


def write(file: Path | None, found: dict[Job, Found | None]) -> None:
    """Rewrites `file` with all results so far."""
    if file is None:
        return
    rows = [
        {
            "case": dataclasses.asdict(job.case),
            "tool": job.tool,
            "found": None if one is None else dataclasses.asdict(one),
        }
        for job, one in found.items()
    ]
    file.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
