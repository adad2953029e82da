"""Two ranks on one machine, which rendezvous over loopback as two nodes would."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.callbacks.ranks.train import SCENARIOS, train

LIMIT = 240


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(folder: Path, rank: int, port: int) -> subprocess.Popen[str]:
    """A rank, as torchrun would start it."""
    elastic = {"TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": str(rank), "LOCAL_WORLD_SIZE": "1"}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    here = {"RANK": str(rank), "LOCAL_RANK": "0", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.callbacks.ranks.train", str(folder), str(rank), "2", *SCENARIOS],
        env={**os.environ, **elastic, **place, **here},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank ended with, by scenario."""
    folder, port = tmp_path_factory.mktemp("ranks"), free_port()
    running = [start(folder, rank, port) for rank in (0, 1)]
    try:
        said = [process.communicate(timeout=LIMIT)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_all_ranks_hold_the_same_network(ranks):
    for scenario in SCENARIOS:
        one, other = (rank[scenario] for rank in ranks)
        if "error" not in one:
            assert one["structure"] == other["structure"] is not None
            torch.testing.assert_close(one["weights"], other["weights"], rtol=0, atol=0)


@pytest.mark.parametrize("scenario", ["taylor", "accumulated", "pass", "floor", "distilled"])
def test_it_is_what_one_rank_makes_of_the_same_batches(ranks, tmp_path, scenario):
    expected, found = train(tmp_path, scenario), ranks[0][scenario]
    assert found["structure"] == expected["structure"]
    torch.testing.assert_close(found["weights"], expected["weights"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["optimizer"], expected["optimizer"], rtol=1e-4, atol=1e-5)
    assert (found["files"], found["points"]) == (expected["files"], expected["points"])


def test_what_was_interrupted_goes_on(ranks):
    for rank in ranks:
        assert rank["resumed"]["structure"] == rank["taylor"]["structure"]
        torch.testing.assert_close(rank["resumed"]["weights"], rank["taylor"]["weights"], rtol=0, atol=0)
        torch.testing.assert_close(rank["resumed"]["optimizer"], rank["taylor"]["optimizer"], rtol=0, atol=0)


def test_a_rank_that_fails_brings_down_the_other_with_the_reason(ranks):
    here, there = (rank["breaks"]["error"] for rank in ranks)
    assert "failed on another process" in here
    assert "rank 1: PruningError" in here
    assert "only here" in here
    assert "only here" in there
    assert "another process" not in there
