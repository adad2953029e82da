"""Cuts the same dense networks of Kvasir-SEG by every criterion, beside controls and Torch-Pruning.

    python -m benchmarks.recovery ROOT DENSE --out FOLDER [--size 128] [--arms PATTERN ...] [--seeds 0 1 2]

ROOT is the folder of Kvasir-SEG, DENSE the checkpoints of the dense networks with {seed} in their place:
'runs/dense_s{seed}/checkpoints/last.ckpt'. FOLDER keeps one file for each network; what is there is not run
again. benchmarks/recovery/page.py makes the table and the figure of it.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor, as_completed
from fnmatch import fnmatch
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from benchmarks.recovery.arms import ARMS, BUDGETS
from benchmarks.recovery.files import file_of, quiet, work
from benchmarks.recovery.job import Job


def main() -> None:
    """Runs what is not there yet."""
    given = arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    jobs = [job for job in chosen(given) if not file_of(given.out, job).exists()]
    with (
        Progress(console=Console(stderr=True)) as progress,
        ProcessPoolExecutor(given.workers, mp_context=get_context("spawn"), initializer=quiet) as pool,
    ):
        bar = progress.add_task("recovery", total=len(jobs))
        waiting = {pool.submit(work, job, given.root, given.dense, given.out): job for job in jobs}
        for done in as_completed(waiting):
            said = done.exception() or done.result()
            progress.console.print(f"{waiting[done]}: {said}")
            progress.advance(bar)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("dense", help="such as 'runs/dense_s{seed}/checkpoints/last.ckpt'")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--arms", nargs="+", default=["*"], help="patterns of names; all by default")
    parser.add_argument("--budgets", nargs="+", default=["*"], help="patterns such as 'params 0.1'")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=1)
    return parser.parse_args()


def chosen(given: argparse.Namespace) -> list[Job]:
    """What is asked for, seed after seed; the dense network has one budget only."""
    return [
        Job(name, budget, seed, given.size)
        for seed in given.seeds
        for budget in BUDGETS
        for name, arm in ARMS.items()
        if any(fnmatch(name, pattern) for pattern in given.arms)
        if any(fnmatch(f"{budget[0]} {budget[1]:g}", pattern) for pattern in given.budgets)
        if arm.cut is not None or budget == BUDGETS[0]
    ]


if __name__ == "__main__":
    main()
