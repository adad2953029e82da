"""`python -m tests.callbacks.killed [--kills N] [--seed S] [cases]`: trainings are killed, and go on.

Each run is a fork of this process, which has imported all and trained nothing, so that a kill costs no start.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from seg_pruning.callbacks.pareto import TABLE
from tests.callbacks.interrupted import assert_equal
from tests.callbacks.killed.runs import CASES, COMMAND, END, train

CHANGES = ("os.rename", "os.remove", "os.chmod", "os.symlink", "os.mkdir")


def count_changes(kill_at: int | None) -> Callable[[], int]:
    """Counts this process's changes of files, and kills it just before number `kill_at`."""
    count = 0

    def hook(name: str, args: tuple[object, ...]) -> None:
        nonlocal count
        if name in CHANGES or (name == "open" and isinstance(args[2], int) and args[2] & os.O_CREAT):
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return lambda: count


def start(folder: Path, name: str, kill_at: int | None = None) -> int:
    """Starts a training in a process of its own."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        with (folder / "log.txt").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        warnings.simplefilter("ignore")
        changes = count_changes(kill_at)
        train(folder, name)
        (folder / "changes.txt").write_text(str(changes()))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def ended(pid: int, seconds: float | None = None) -> bool:
    """Whether the training came to its end, and was not killed: here, after `seconds`."""
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return False
    assert os.waitstatus_to_exitcode(status) == 0
    return True


def whole(folder: Path, name: str) -> tuple[float, int]:
    """The training that is not killed: its seconds, and its changes of files."""
    begin = time.perf_counter()
    assert ended(start(folder, name))
    return time.perf_counter() - begin, int((folder / "changes.txt").read_text())


def killed(folder: Path, name: str, kills: int, rng: random.Random, seconds: float, changes: int) -> int:
    """The training that is killed up to `kills` times; how often it was."""
    for number in range(kills):
        if rng.random() < 0.5:
            over = ended(start(folder, name, kill_at=rng.randint(1, changes)))
        else:
            over = ended(start(folder, name), rng.uniform(0, seconds))
        if over or (folder / END).exists():
            return number
    assert ended(start(folder, name))
    return kills


def check(folder: Path, reference: Path) -> None:
    """Both ended alike, and what the table lists is there."""
    one, other = (torch.load(place / END, weights_only=False) for place in (reference, folder))
    assert_equal(one, other)
    if not (folder / "c").exists():  # of the command line: each start has a folder of its own
        return
    with (folder / "c" / TABLE).open() as file, (reference / "c" / TABLE).open() as wanted:
        mine, theirs = list(csv.DictReader(file)), list(csv.DictReader(wanted))
    rows, wanted_rows = (
        [{**row, "path": Path(row["path"]).name} for row in found] for found in (mine, theirs)
    )
    assert rows == wanted_rows, f"{rows}\n{wanted_rows}"
    for row in mine:
        assert torch.load(row["path"], weights_only=True)["state_dict"]


def main(arguments: list[str]) -> int:
    """Prints a line for each case; how many went wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", default=[*CASES, COMMAND])
    parser.add_argument("--kills", type=int, default=50, help="of each case")
    parser.add_argument("--each", type=int, default=4, help="at most so many of one training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temporary", default=None, help="folder of temporary files, of another file system")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    wrong = 0
    for name in given.cases:
        rng = random.Random(f"{given.seed} {name}")
        with tempfile.TemporaryDirectory() as place:
            tempfile.tempdir = given.temporary
            wrong += not case(Path(place), name, given.kills, given.each, rng)
    return wrong


def case(place: Path, name: str, kills: int, each: int, rng: random.Random) -> bool:
    """Whether trainings of one case, killed so many times together, all end right; says it in a line."""
    reference = place / "whole"
    reference.mkdir()
    seconds, changes = whole(reference, name)
    done = runs = 0
    try:
        while done < kills:
            folder = place / f"run{runs}"
            folder.mkdir()
            done += killed(folder, name, min(each, kills - done), rng, seconds, changes)
            check(folder, reference)
            runs += 1
    except AssertionError:
        print(f"{name:22} WRONG in run {runs}, after {done} kills", flush=True)
        traceback.print_exc()
        print((folder / "log.txt").read_text()[-3000:], *sorted(folder.rglob("*.ckpt")), sep="\n")
        return False
    print(
        f"{name:22} right: {done} kills, {runs} trainings of {seconds:.1f} s, {changes} changes", flush=True
    )
    return True


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
