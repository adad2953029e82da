"""Median times of calls that take turns, so that what else the machine does hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Protocol

import torch

from seg_pruning.profiling.inference import device_name, set_threads, without_collection

Call = Callable[[], object]


class Clock(Protocol):
    """Measures calls."""

    def milliseconds(self, calls: Sequence[Call]) -> list[float]:
        """The median time of each of `calls`."""


class DeviceClock:
    """Measures calls on a device.

    Args:
        device: where they run; it is waited for before and after each.
        threads: threads within one operation on the CPU.
        runs: timed runs of each call, or fewer, at least three, where they would take longer than `budget_ms`
            altogether.
        budget_ms: see `runs`.
    """

    def __init__(
        self, device: torch.device, *, threads: int = 1, runs: int = 9, budget_ms: float = 1000.0
    ) -> None:
        self.device = device
        self.threads = threads
        self.runs = runs
        self.budget_ms = budget_ms

    @property
    def name(self) -> str:
        """The hardware in words."""
        return device_name(self.device)

    def milliseconds(self, calls: Sequence[Call]) -> list[float]:
        """The median time of each of `calls`; they take turns, every other round backwards."""
        times: list[list[float]] = [[] for _ in calls]
        with set_threads(self.threads), without_collection(), torch.no_grad():
            for call in calls:
                self._once(call)
            first = sum(self._once(call) for call in calls)
            runs = max(3, min(self.runs, int(self.budget_ms / max(first, 1e-6))))
            for done in range(runs):
                order = range(len(calls))
                for i in reversed(order) if done % 2 else order:
                    times[i].append(self._once(calls[i]))
        return [median(found) for found in times]

    def _once(self, call: Call) -> float:
        self._synchronise()
        start = time.perf_counter_ns()
        call()
        self._synchronise()
        return (time.perf_counter_ns() - start) / 1e6

    def _synchronise(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
