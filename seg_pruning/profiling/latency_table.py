"""Milliseconds of layers as functions of the lengths of their weights: measured on a grid, interpolated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from seg_pruning.profiling.cache import LatencyCache, Times
from seg_pruning.profiling.clock import Clock
from seg_pruning.profiling.layers import LayerCall, Placed

if TYPE_CHECKING:
    from seg_pruning.surgery.costs import Table, Vector
    from seg_pruning.surgery.graph import ChannelGraph

_Floats = npt.NDArray[np.float64]
_PARTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


@dataclass(frozen=True)
class LatencyTable:
    """Times of layers on a grid of the lengths of their weights.

    Attributes:
        lengths: the two lengths of each weight as functions of the kept channels, first of all layers, second
            of all layers.
        first: grid of the first length, shape `(layers, points)`, never falling.
        second: grid of the second length.
        times: milliseconds, shape `(layers, points, points)`; never less for more channels.
    """

    lengths: Table
    first: _Floats
    second: _Floats
    times: _Floats

    def milliseconds(self, kept: Vector) -> float:
        """The sum of all layers when group `i` keeps `kept[i]` channels; between points it is bilinear."""
        if not len(self.times):
            return 0.0
        first, second = np.split(self.lengths.each(kept), 2)
        i, x = _place(self.first, first)
        j, y = _place(self.second, second)
        layer = np.arange(len(self.times))
        low = self.times[layer, i, j] * (1 - x) + self.times[layer, i + 1, j] * x
        high = self.times[layer, i, j + 1] * (1 - x) + self.times[layer, i + 1, j + 1] * x
        return float((low * (1 - y) + high * y).sum())


def _place(grid: _Floats, at: _Floats) -> tuple[npt.NDArray[np.int64], _Floats]:
    """Between which points `at` lies, and how far along."""
    index = np.clip((grid <= at[:, None]).sum(axis=1) - 1, 0, grid.shape[1] - 2)
    row = np.arange(len(grid))
    low, high = grid[row, index], grid[row, index + 1]
    along = np.where(high > low, (at - low) / np.where(high > low, high - low, 1.0), 1.0)
    return index, np.clip(along, 0.0, 1.0)


def grid(length: int, *, free: bool, multiple: int = 1) -> tuple[int, ...]:
    """The lengths that are measured, never falling.

    A width that is a multiple of nothing is what rankings give, and is often slower than the next multiple of
    8: so even points are moved to the odd ones below, or to multiples where widths are kept to those.

    >>> grid(64, free=True), grid(64, free=True, multiple=8), grid(3, free=False)
    ((3, 7, 15, 31, 64), (8, 8, 16, 32, 64), (3, 3, 3, 3, 3))
    """
    if not free:
        return (length,) * len(_PARTS)
    inner = [max(1, round(part * length)) for part in _PARTS[:-1]]
    if multiple > 1:
        moved = [min(length, max(multiple, point // multiple * multiple)) for point in inner]
    else:
        moved = [point - 1 if point % 2 == 0 and point > 1 else point for point in inner]
    return (*moved, length)


def measure_table(
    graph: ChannelGraph,
    layers: Sequence[Placed],
    clock: Clock,
    cache: LatencyCache,
    *,
    device: torch.device,
    dtype: torch.dtype,
    dense: Mapping[str, tuple[int, ...]],
    multiple: int = 1,
) -> LatencyTable:
    """Measures what is not in `cache`, and adds it there.

    Args:
        graph: the groups.
        layers: the layers of one pass; layers that are alike are measured once.
        clock: what measures.
        cache: the times that are known.
        device: where layers run.
        dtype: what they compute in.
        dense: shapes of weights before earlier cuts: the grid stays, and with it what was measured.
        multiple: what widths are multiples of.
    """
    lengths = graph.lengths([(p.weight, 0) for p in layers] + [(p.weight, 1) for p in layers])
    free = np.asarray(lengths.times.any(axis=(0, 2)))
    known, new = cache.load(), dict[str, dict[str, float]]()
    axes, times = [], []
    for number, placed in enumerate(layers):
        present = graph.trace.shapes[placed.weight]
        whole = dense.get(placed.weight, present)
        pair = tuple(
            grid(whole[dim], free=True, multiple=math.lcm(multiple, placed.layer.blocks if dim == 0 else 1))
            if free[number + dim * len(layers)]
            else grid(present[dim], free=False)
            for dim in (0, 1)
        )
        calls = {
            f"{a},{b}": LayerCall(placed.layer, a, b, device, dtype)
            for a in dict.fromkeys(pair[0])
            for b in dict.fromkeys(pair[1])
        }
        found = _measured(placed.layer.key, calls, known, new, clock)
        axes.append(pair)
        times.append([[found[f"{a},{b}"] for b in pair[1]] for a in pair[0]])
    cache.add(new)
    size = len(_PARTS)
    both = np.array(axes, dtype=np.float64).reshape(len(layers), 2, size)
    values = np.array(times, dtype=np.float64).reshape(len(layers), size, size)
    rising = np.maximum.accumulate(np.maximum.accumulate(values, axis=1), axis=2)
    return LatencyTable(lengths, both[:, 0], both[:, 1], rising)


def _measured(
    key: str, calls: Mapping[str, LayerCall], known: Times, new: Times, clock: Clock
) -> dict[str, float]:
    """The times of one layer; what had to be measured is noted in `new` and in `known`."""
    missing = [lengths for lengths in calls if lengths not in known.get(key, {})]
    if missing:
        found = dict(zip(missing, clock.milliseconds([calls[m] for m in missing]), strict=True))
        for book in (known, new):
            book.setdefault(key, {}).update(found)
    return known[key]
