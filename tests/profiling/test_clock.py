from types import SimpleNamespace

import pytest
import torch

from seg_pruning.profiling import clock
from seg_pruning.profiling.clock import DeviceClock


def test_calls_take_turns_and_medians_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: a call of each to warm up, one to see how long, then 5 rounds, every other backwards."""
    now, log = [0], []
    durations = {"A": iter([900, 1, 5, 1, 2, 3, 100]), "B": iter([900, 1, 50, 20, 30, 40, 10])}

    def call(name: str) -> None:
        log.append((name, torch.get_num_threads(), torch.is_grad_enabled()))
        now[0] += next(durations[name]) * 1_000_000

    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter_ns=lambda: now[0]))
    before = torch.get_num_threads()
    found = DeviceClock(torch.device("cpu"), threads=3, runs=5).milliseconds(
        [lambda: call("A"), lambda: call("B")]
    )
    assert found == [3.0, 30.0]
    assert "".join(name for name, *_ in log) == "ABAB" + "ABBAABBAAB"
    assert {entry[1:] for entry in log} == {(3, False)}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("milliseconds", "runs"), [(1, 9), (100, 5), (400, 3)])
def test_long_calls_run_less_often(monkeypatch: pytest.MonkeyPatch, milliseconds: int, runs: int) -> None:
    now, count = [0], [0]

    def call() -> None:
        count[0] += 1
        now[0] += milliseconds * 1_000_000

    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter_ns=lambda: now[0]))
    DeviceClock(torch.device("cpu"), runs=9, budget_ms=500).milliseconds([call])
    assert count[0] == 2 + runs
