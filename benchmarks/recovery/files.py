"""One file for each network that was run."""

import json
import subprocess
import warnings
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from benchmarks.recovery.arms import ARMS
from benchmarks.recovery.job import Job, run

PACKAGES = ("torch", "lightning", "segmentation-models-pytorch", "torch-pruning")


def file_of(out: Path, job: Job) -> Path:
    """Where its result lies."""
    unit, kept = job.budget
    return out / f"{job.size}px_{unit}_{kept:g}_s{job.seed}_{job.name.replace(' ', '_')}.json"


def quiet() -> None:
    """Leaves out advice about workers and logging that is on purpose here."""
    warnings.filterwarnings("ignore", module="lightning")


def work(job: Job, root: Path, dense: str, out: Path) -> str:
    """Runs a job, writes its file and says what came out."""
    found = run(job, ARMS[job.name], root, Path(dense.format(seed=job.seed)))
    row = {
        "name": job.name,
        "budget": job.budget,
        "seed": job.seed,
        "size": job.size,
        "commit": commit(),
        "versions": {name: version(name) for name in PACKAGES},
        **asdict(found),
    }
    file = file_of(out, job)
    file.with_suffix(".tmp").write_text(json.dumps(row) + "\n")
    file.with_suffix(".tmp").rename(file)
    best = sum(found.tuned) / len(found.tuned)
    return f"{sum(found.test) / len(found.test):.3f} ({best:.3f}), {found.seconds:.0f} s"


def commit() -> str:
    """The commit that ran, marked where files differ from it."""
    command = ("git", "describe", "--always", "--dirty", "--exclude=*")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
