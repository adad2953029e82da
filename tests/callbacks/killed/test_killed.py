"""Some of the kills of `python -m tests.callbacks.killed`, which makes fifty of each case."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of one process")


def test_a_training_that_is_killed_ends_like_one_that_was_not():
    """In epochs, and with a promise, whose networks to go back to are in files of their own."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.callbacks.killed",
            "--kills",
            "3",
            "--seed",
            "1",
            "recovery in epochs",
            "floor, seldom saved",
        ],
        capture_output=True,
        text=True,
        timeout=1200,  # it takes ten seconds; on a machine with much other work it may starve
        cwd=Path(__file__).parents[3],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("right: 3 kills") == 2
