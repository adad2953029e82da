"""The one order in which channels leave.

Every group is a queue of steps. A step takes one channel, or one from each block, the least important first;
its score is the mean of its channels'. `global` scope merges all queues by score, `local` by the share of
the group that is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seg_pruning.pruning.amounts import Meter
from seg_pruning.pruning.options import Normalise, Per, Selection
from seg_pruning.pruning.widths import AllWidths, Floats, Ints
from seg_pruning.surgery.errors import PruningError

if TYPE_CHECKING:
    from torch import Tensor

    from seg_pruning.surgery.graph import ChannelGroup


@dataclass(frozen=True)
class Queue:
    """The channels of one group in the order in which they leave.

    Attributes:
        order: one row of channels for each step, shape `(steps, blocks)`.
        scores: score of each step, never falling.
    """

    order: Ints
    scores: Floats

    @classmethod
    def of(cls, group: ChannelGroup, scores: Mapping[str, Tensor], *, steps: int) -> Queue:
        """The queue of `group`; its scores are not looked at where no step may be taken.

        Raises:
            PruningError: the scores are missing, of another size or not finite.
        """
        rows = np.array(group.rows, dtype=np.int64)
        values = _checked(group, scores) if steps else np.zeros(group.size)
        order = np.take_along_axis(rows, np.argsort(values[rows], axis=1, kind="stable"), axis=1).T
        return cls(order, values[order].mean(axis=1))


def merged(queues: Sequence[Queue], widths: AllWidths, selection: Selection, meter: Meter) -> Ints:
    """The group of each step, in the one order in which channels leave; ties go by step, then by group.

    Steps that ceilings take come first.

    Raises:
        PruningError: scores are counted per latency, which is not known.
    """
    if not queues:
        return np.zeros(0, dtype=np.int64)
    counts = widths.steps
    group_of = np.repeat(np.arange(len(queues)), counts)
    step_of = np.concatenate([np.arange(count) for count in counts])
    keys = np.concatenate(_keys(queues, counts, selection, meter))
    keys[step_of < widths.forced[group_of]] = -np.inf
    return group_of[np.lexsort((group_of, step_of, keys))]


def _keys(queues: Sequence[Queue], counts: Ints, selection: Selection, meter: Meter) -> list[Floats]:
    """What the steps of each group are merged by."""
    if selection.scope == "local":
        return [
            np.arange(1, count + 1) / len(queue.scores) for queue, count in zip(queues, counts, strict=True)
        ]
    saved = savings(meter, selection.per)
    return [
        _worth(queue.scores[:count] / (_scale(queue.scores, selection.normalise) or 1.0), saving)
        for queue, count, saving in zip(queues, counts, saved, strict=True)
    ]


def _scale(scores: Floats, normalise: Normalise) -> float:
    """What the scores of a group are divided by."""
    if normalise == "none":
        return 1.0
    return float(np.abs(scores).mean() if normalise == "mean" else np.linalg.norm(scores))


def savings(meter: Meter, per: Per) -> Floats:
    """What one step of each group saves, all others whole, relative to the mean of all groups.

    Ones where scores are taken as they are. A step that saves next to nothing counts as a thousandth.

    Raises:
        PruningError: scores are counted per latency, which is not known.
    """
    groups, whole = meter.graph.prunable, meter.whole
    if per == "channel" or not groups:
        return np.ones(len(groups))
    amount = meter.amounts.get("latency_ms" if per == "latency" else per)
    if amount is None:
        raise PruningError(
            'per="latency" needs to know latencies: give prune_(target=...), or select(latency=...)'
        )
    steps = np.diag([float(min(group.step, group.size - 1)) for group in groups])
    saved = amount(whole) - np.array([amount(whole - step) for step in steps], dtype=np.float64)
    return np.maximum(saved / (saved.mean() or 1.0), 1e-3)


def _worth(scores: Floats, saving: float) -> Floats:
    """Scores for each unit saved; where a score is below zero, the more is saved the lower it becomes."""
    return np.where(scores < 0, scores * saving, scores / saving)


def _checked(group: ChannelGroup, scores: Mapping[str, Tensor]) -> Floats:
    if group.name not in scores:
        raise PruningError(f"there is no score for group {group.name!r}; score all of graph.prunable")
    values: Floats = scores[group.name].detach().double().cpu().numpy()
    if values.shape != (group.size,):
        raise PruningError(
            f"expected the scores of group {group.name!r} to be of shape {(group.size,)}, one for each "
            f"channel, but got {values.shape}"
        )
    if not np.isfinite(values).all():
        raise PruningError(
            f"{int((~np.isfinite(values)).sum())} of the {group.size} scores of group {group.name!r} are not "
            "finite; look for weights or gradients that are not"
        )
    return values
