import gc
from collections.abc import Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seg_pruning.profiling import compare_latency, latency
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import Inputs

MODULE = import_module("seg_pruning.profiling.latency")  # the package calls its function by the same name


class Spy(nn.Module):
    """Writes down each call and the conditions of it."""

    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__()
        self.name = name
        self.log = log
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
        self.conditions: set[tuple[object, ...]] = set()

    def forward(self, image: Tensor) -> Tensor:
        self.log.append(self.name)
        conditions = (self.training, torch.is_grad_enabled(), torch.get_num_threads(), gc.isenabled())
        self.conditions.add(conditions)
        return image


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_networks_run_in_turns_and_the_turns_turn_round() -> None:
    log: list[str] = []
    rounds: list[tuple[int, int]] = []
    models = {name: Spy(name, log) for name in "AB"}
    timed = compare_latency(
        models, torch.zeros(1), warmup=2, runs=3, progress=lambda done, total: rounds.append((done, total))
    )
    assert "".join(log) == "ABBAABBAAB"
    assert list(timed) == ["A", "B"]
    assert [timed[name].runs for name in "AB"] == [3, 3]
    assert rounds == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


@pytest.mark.usefixtures("two_threads")
def test_conditions_hold_inside_and_are_put_back() -> None:
    spy = Spy("A", [])
    latency(spy, torch.zeros(1), threads=1, warmup=1, runs=2)
    assert spy.conditions == {(False, False, 1, False)}
    assert spy.training
    assert torch.get_num_threads() == 2
    assert gc.isenabled()
    assert torch.is_grad_enabled()


@pytest.mark.usefixtures("two_threads")
def test_conditions_are_put_back_after_an_error() -> None:
    model = nn.Conv2d(3, 4, 3)
    with pytest.raises(RuntimeError, match="channels"):
        latency(model, torch.zeros(1, 5, 8, 8))
    assert model.training
    assert torch.get_num_threads() == 2
    assert gc.isenabled()


def test_what_was_measured_is_written_down() -> None:
    image = torch.zeros(2, 3, 8, 4).to(memory_format=torch.channels_last)
    found = latency(Spy("A", []), {"image": image}, warmup=0, runs=4)
    assert (found.runs, found.warmup, found.threads) == (4, 0, 1)
    assert (found.batch, found.shapes) == (2, ((2, 3, 8, 4),))
    assert (found.dtype, found.memory_format) == ("bfloat16", "channels_last")
    assert (found.device, found.torch) == ("cpu", torch.__version__)
    assert found.device_name


def test_times_are_quantiles_of_the_timed_runs_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by hand: one pass of warm-up of 1 s, then passes of 1, 2, ..., 20 ms."""
    durations = [1000, *range(1, 21)]
    ticks = [
        tick
        for total, d in zip(np.cumsum([0, *durations]), durations, strict=False)
        for tick in (total, total + d)
    ]
    clock = iter([int(tick) * 1_000_000 for tick in ticks])
    monkeypatch.setattr(MODULE, "time", SimpleNamespace(perf_counter_ns=lambda: next(clock)))
    found = latency(nn.Identity(), torch.zeros(1), warmup=1, runs=20)
    assert found.p50_ms == pytest.approx(10.5)
    assert found.p95_ms == pytest.approx(1 + 0.95 * 19)
    assert found.p99_ms == pytest.approx(1 + 0.99 * 19)


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_an_accelerator_is_waited_for_before_the_clock_starts_and_stops(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    log: list[str] = []
    watch = MODULE._Stopwatch(Spy("forward", log), Inputs.of(torch.zeros(1)))
    watch.device = torch.device(kind)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: log.append(f"wait for {device}"))
    monkeypatch.setattr(MODULE, "time", SimpleNamespace(perf_counter_ns=lambda: log.append("clock") or 0))
    watch.run()
    wait = f"wait for {kind}"
    assert log == [wait, "clock", "forward", wait, "clock"]


def test_the_random_state_is_kept() -> None:
    model = nn.Identity()
    model.register_forward_hook(lambda *_: torch.rand(1))
    rng = torch.get_rng_state()
    latency(model, torch.zeros(1), warmup=0, runs=2)
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runs": 0}, "`runs` to be 1 or more, but got 0"),
        ({"threads": 0}, "`threads` to be 1 or more, but got 0"),
        ({"warmup": -1}, "`warmup` to be 0 or more, but got -1"),
    ],
)
def test_numbers_that_measure_nothing_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        latency(nn.Identity(), torch.zeros(1), **arguments)


def test_nothing_to_time_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one network"):
        compare_latency({}, torch.zeros(1))
    with pytest.raises(PruningError, match="tensor"):
        latency(nn.Identity(), ())
