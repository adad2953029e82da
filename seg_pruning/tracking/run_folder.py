"""The one new folder that a run writes."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from seg_pruning.surgery.errors import PruningError


@dataclass(frozen=True)
class RunFolder:
    """Where a run writes its folder, and under what name.

    Args:
        root: The folder of all runs.
        name: The name of this run's folder; the time at which it started if none is given.
    """

    root: str = "runs"
    name: str | None = None

    def choose(self, now: datetime, *, goes_on: bool = False) -> Path:
        """Gives a folder that does not exist yet, and makes nothing.

        Args:
            now: The time to name it after.
            goes_on: Whether the run goes on from another of its name, and gets a number behind it.

        Raises:
            PruningError: If a folder of the given name exists, or the name is none.
        """
        root = Path(self.root)
        if self.name is None:
            return _free(root / now.strftime("%Y-%m-%d_%H-%M-%S"))
        if self.name in ("", "..") or Path(self.name).name != self.name:
            raise PruningError(
                f"A run's name is a plain folder name, not {self.name!r}. "
                "The folder of all runs is --run.root."
            )
        folder = root / self.name
        if goes_on:
            return _free(folder)
        if folder.exists():
            raise PruningError(
                f"The run {folder} exists, and no run overwrites another. Choose another --run.name, "
                "leave it out to name the run after the time, or remove the folder."
            )
        return folder

    def last(self) -> Path | None:
        """Gives the newest ``last.ckpt`` of the runs of this name, numbered or not; of all without one."""
        name = ".*" if self.name is None else rf"{re.escape(self.name)}(-\d+)?"
        found = Path(self.root).glob("*/checkpoints/last*.ckpt")
        mine = [file for file in found if re.fullmatch(name, file.parents[1].name) and file.exists()]
        return max(mine, key=lambda file: file.stat().st_mtime, default=None)


@contextmanager
def written(folder: Path) -> Iterator[None]:
    """Makes the folder for the block, and removes it if the block fails before there is a result in it.

    A config and the files of loggers are no result. On processes of a distributed run other than the first it
    does nothing.
    """
    if getattr(rank_zero_only, "rank", 0) != 0:
        yield
        return
    new_root = not folder.parent.exists()
    folder.mkdir(parents=True)  # fails if it exists, so that all that is removed below is this run's own
    try:
        yield
    except BaseException:
        if not _has_results(folder):
            shutil.rmtree(folder)
            if new_root and not any(folder.parent.iterdir()):
                folder.parent.rmdir()
        raise


def _has_results(folder: Path) -> bool:
    return any(entry.name not in ("config.yaml", "wandb") for entry in folder.iterdir())


def _free(folder: Path) -> Path:
    free, number = folder, 1
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free
