"""Measured time of a forward pass; several networks are timed in turns, so that drift hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from seg_pruning.profiling.inference import (
    device_name,
    device_of,
    dtype_of,
    evaluating,
    keeping_rng,
    set_threads,
    without_collection,
)
from seg_pruning.surgery.inputs import ExampleInputs, Inputs

Progress = Callable[[int, int], None]
"""Called with the rounds done and the rounds in all, never inside a timed part."""


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass in eval mode and the conditions that it was measured under.

    Attributes:
        p50_ms: Median over the runs, in milliseconds; `p95_ms` and `p99_ms` are the slower quantiles.
        runs: Timed passes, after `warmup` passes that were not timed.
        device: Where it ran, as torch names it; `device_name` is the hardware.
        threads: Threads within one operation on the CPU.
        dtype: Of the first floating parameter, such as "float32".
        memory_format: "channels_last" or "contiguous", of the first input with four dims.
        batch: Length of the first dim of the inputs.
        shapes: The shape of each input tensor.
        torch: The version of torch.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float
    runs: int
    warmup: int
    device: str
    device_name: str
    threads: int
    dtype: str
    memory_format: str
    batch: int
    shapes: tuple[tuple[int, ...], ...]
    torch: str


def latency(
    model: nn.Module,
    example_inputs: ExampleInputs | Inputs,
    *,
    threads: int = 1,
    warmup: int = 10,
    runs: int = 50,
    progress: Progress | None = None,
) -> Latency:
    """Time of one forward pass of `model`, as `compare_latency` measures it.

    To set two networks against each other use `compare_latency`: two separate measurements differ by whatever
    else the machine did meanwhile.
    """
    timed = compare_latency(
        {"model": model}, example_inputs, threads=threads, warmup=warmup, runs=runs, progress=progress
    )
    return timed["model"]


def compare_latency(
    models: Mapping[str, nn.Module],
    example_inputs: ExampleInputs | Inputs,
    *,
    threads: int = 1,
    warmup: int = 10,
    runs: int = 50,
    progress: Progress | None = None,
) -> dict[str, Latency]:
    """Times of one forward pass of each network, measured in turns: A B, B A, A B, ...

    Each pass is in eval mode without gradients, the device synchronised before the clock starts and before it
    stops. Networks, their modes, the number of threads and the random state are as before.

    Args:
        models: Networks by name; each runs where its parameters are, in the dtype that they have.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments, in the batch, size and
            memory format to time; on any device.
        threads: Threads within one operation on the CPU.
        warmup: Passes of each network before the first that counts.
        runs: Timed passes of each network.
        progress: Called after each round of all networks, untimed.

    Raises:
        PruningError: `example_inputs` has none of these forms.
        ValueError: No network, or `threads` or `runs` below 1, or `warmup` below 0.
    """
    _check(models, threads, warmup, runs)
    inputs = Inputs.of(example_inputs)
    stopwatches = {name: _Stopwatch(model, inputs) for name, model in models.items()}
    watches = list(stopwatches.values())
    accelerators = (watch.device for watch in watches if watch.device.type != "cpu")
    rng = keeping_rng(next(accelerators, torch.device("cpu")))
    with evaluating(*models.values()), rng, torch.no_grad(), set_threads(threads), without_collection():
        _rounds(watches, warmup, runs, progress)
    return {name: watch.read(threads, warmup) for name, watch in stopwatches.items()}


class _Stopwatch:
    """One network, its inputs where it runs, and the times in milliseconds taken so far."""

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        self.model = model
        self.device = device_of(model, inputs)
        self.inputs = inputs.to(device=self.device)
        self.times: list[float] = []

    def run(self) -> float:
        """Milliseconds of one pass."""
        self._synchronise()
        start = time.perf_counter_ns()
        self.inputs.call(self.model)
        self._synchronise()
        return (time.perf_counter_ns() - start) / 1e6

    def read(self, threads: int, warmup: int) -> Latency:
        """The quantiles of the times, with the conditions."""
        p50, p95, p99 = (float(np.percentile(self.times, q)) for q in (50, 95, 99))
        return Latency(
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
            runs=len(self.times),
            warmup=warmup,
            device=str(self.device),
            device_name=device_name(self.device),
            threads=threads,
            dtype=str(dtype_of(self.model, self.inputs)).removeprefix("torch."),
            memory_format=_memory_format(self.inputs.tensors),
            batch=self.inputs.batch,
            shapes=self.inputs.shapes,
            torch=torch.__version__,
        )

    def _synchronise(self) -> None:
        """Waits for what was sent to the device."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)


def _rounds(watches: list[_Stopwatch], warmup: int, runs: int, progress: Progress | None) -> None:
    """All networks in turns; every other round backwards, so that none always follows the same one."""
    for done in range(warmup + runs):
        for watch in reversed(watches) if done % 2 else watches:
            milliseconds = watch.run()
            if done >= warmup:
                watch.times.append(milliseconds)
        if progress is not None:
            progress(done + 1, warmup + runs)


def _check(models: Mapping[str, nn.Module], threads: int, warmup: int, runs: int) -> None:
    """What cannot be measured is refused before anything runs."""
    if not models:
        raise ValueError("Expected at least one network to time, but got none. Give them as {name: module}.")
    for name, value, least in (("threads", threads, 1), ("warmup", warmup, 0), ("runs", runs, 1)):
        if value < least:
            raise ValueError(f"Expected `{name}` to be {least} or more, but got {value}.")


def _memory_format(tensors: list[Tensor]) -> str:
    """How the first image among `tensors` lies in memory; one of a single channel is called contiguous."""
    image = next((tensor for tensor in tensors if tensor.dim() == 4), None)
    if image is None or image.is_contiguous():
        return "contiguous"
    return "channels_last" if image.is_contiguous(memory_format=torch.channels_last) else "strided"
