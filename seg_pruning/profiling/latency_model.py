"""Milliseconds of a network as a function of its widths: foretold from its layers, set right by measuring.

A pass takes the sum of its convolutions and linear layers, each from a table, and the rest: a constant, and
so much for each byte of activation that is written. The two numbers of the rest are what the whole network
takes, dense and thin, beyond its layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from seg_pruning.profiling.cache import LatencyCache
from seg_pruning.profiling.clock import Clock, DeviceClock
from seg_pruning.profiling.inference import device_name, device_of
from seg_pruning.profiling.latency_table import LatencyTable, measure_table
from seg_pruning.profiling.layers import layers_of
from seg_pruning.profiling.target import Target
from seg_pruning.profiling.timer import NetworkTimer
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import ExampleInputs, Inputs
from seg_pruning.surgery.note import structure_of
from seg_pruning.surgery.plan import Plan

if TYPE_CHECKING:
    from seg_pruning.surgery.costs import Vector
    from seg_pruning.surgery.graph import ChannelGraph, ChannelGroup


@dataclass(frozen=True)
class LatencyModel:
    """Foretells milliseconds; never more for fewer channels.

    Attributes:
        layers: the table of convolutions and linear layers.
        written: bytes that all ops write, at given widths.
        fixed: milliseconds that no width changes.
        per_byte: milliseconds for each byte that is written.
        factor: what measuring whole networks has shown all this to be off by.
        timer: measures the network itself.
    """

    layers: LatencyTable
    written: Callable[[Vector], int]
    fixed: float
    per_byte: float
    timer: NetworkTimer
    factor: float = 1.0

    def __call__(self, kept: Vector) -> float:
        """Milliseconds of one pass when group `i` of `graph.prunable` keeps `kept[i]` channels."""
        rest = self.fixed + self.per_byte * self.written(kept)
        return self.factor * (self.layers.milliseconds(kept) + rest)

    def corrected(self, by: float) -> LatencyModel:
        """The same with all times multiplied by `by`: what was measured over what was foretold."""
        return replace(self, factor=self.factor * by)


def latency_of(
    graph: ChannelGraph,
    model: nn.Module,
    example_inputs: ExampleInputs | Inputs,
    target: Target = Target(),  # noqa: B008 - frozen
    *,
    multiple: int = 1,
    clock: Clock | None = None,
) -> LatencyModel:
    """Measures the layers of `model`, or reads what was measured before, and foretells any widths from them.

    The network is also timed whole, as it is and, for a moment, cut to a quarter; then it is as it was.

    Args:
        graph: its graph, of now.
        model: the network, on the device that counts.
        example_inputs: what it is called with; brought to the batch and the dtype of `target`.
        target: threads, dtype, batch.
        multiple: what widths will be multiples of.
        clock: what measures; the device's own clock by default.

    Example:
        >>> import tempfile
        >>> import seg_pruning as sp
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
        >>> image = torch.zeros(1, 3, 8, 8)
        >>> class Fake:
        ...     def milliseconds(self, calls):
        ...         return [1.0 for _ in calls]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     graph, target = sp.trace(net, image), Target(cache=folder)
        ...     latency = latency_of(graph, net, image, target, clock=Fake())
        >>> latency(np.array([8.0]))
        1.0
    """
    inputs = Inputs.of(example_inputs)
    device = device_of(model, inputs)
    inputs = target.inputs(inputs.to(device=device))
    clock = clock or DeviceClock(device, threads=target.threads)
    timer = NetworkTimer(model, graph, inputs, target, clock)
    with timer.running():
        layers = layers_of(model, inputs)
    structure = structure_of(model)
    table = measure_table(
        graph,
        layers,
        clock,
        LatencyCache(target.folder, _conditions(device, target)),
        device=device,
        dtype=target.torch_dtype,
        dense={} if structure is None else structure.dense,
        multiple=multiple,
    )
    return _set_right(LatencyModel(table, graph.costs.written, 0.0, 0.0, timer))


def _conditions(device: torch.device, target: Target) -> dict[str, str | int]:
    threads = target.threads if device.type == "cpu" else 0
    return {
        "device": device_name(device),
        "threads": threads,
        "dtype": target.dtype,
        "torch": torch.__version__,
    }


def _set_right(model: LatencyModel) -> LatencyModel:
    """Splits what the network takes beyond its layers into a constant and a price for each byte."""
    graph, timer = model.timer.graph, model.timer
    whole = np.array([group.size for group in graph.prunable], dtype=np.float64)
    kept = {group.name: _quarter(group) for group in graph.prunable}
    thin = np.array([len(kept[group.name]) for group in graph.prunable], dtype=np.float64)
    try:
        present, pruned = timer.beside(Plan(kept, {group.name: group.size for group in graph.prunable}))
    except (PruningError, RuntimeError):  # it does not run as thin as that: all of the rest is a constant
        thin, (present, pruned) = whole, (timer.present(),) * 2
    rest = [max(0.0, ms - model(at)) for ms, at in ((present, whole), (pruned, thin))]
    written = [model.written(at) for at in (whole, thin)]
    per_byte = max(0.0, rest[0] - rest[1]) / max(1, written[0] - written[1])
    per_byte = min(per_byte, rest[0] / max(1, written[0]))
    found = replace(model, per_byte=per_byte, fixed=rest[0] - per_byte * written[0])
    foretold = found(whole)
    return found.corrected(present / foretold) if foretold > 0 else replace(found, fixed=present)


def _quarter(group: ChannelGroup) -> tuple[int, ...]:
    """The first quarter of each block of a group, of no score."""
    width = len(group.rows[0])
    count = max(min(2, width), math.ceil(width / 4))
    return tuple(sorted(i for row in group.rows for i in row[:count]))
