"""The best checkpoint of every size that a run reaches, and a table of them."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from seg_pruning.callbacks.averages import save_weights
from seg_pruning.callbacks.dense import checkpoint_folder
from seg_pruning.callbacks.packages import of_kind
from seg_pruning.callbacks.ranks import decided
from seg_pruning.pruning.budgets import Amounts
from seg_pruning.surgery.atomic import whole_file

TABLE = "pareto.csv"
"""The name of the table, beside the checkpoints."""


@dataclass(frozen=True)
class Point:
    """One size of the network.

    Attributes:
        size: how many cuts had been made when it was reached; 0 for the dense network.
        params: parameters.
        macs: multiply-accumulates of one pass of the example inputs.
        monitor: the metric by which checkpoints are chosen; empty where there is none.
        metric: its value; None where there is none.
        path: the checkpoint, weights and structure alone.
    """

    size: int
    params: int
    macs: int
    monitor: str
    metric: float | None
    path: str


def keep_best(
    points: dict[int, Point], trainer: L.Trainer, size: int, now: Amounts, *, part: str = ""
) -> dict[int, Point]:
    """The points after one more validation of a network; its checkpoint is written if it is the best so far.

    Best is by the monitor of the first `ModelCheckpoint` that has one, otherwise the last. Nothing happens
    where a trainer keeps no checkpoints.

    Args:
        points: those so far.
        trainer: the training.
        size: how many cuts were made.
        now: what the network costs.
        part: what is pruned; see `checkpoint_folder`.
    """
    folder = checkpoint_folder(trainer, part)
    if folder is None:
        return points
    monitor, mode = _monitor(trainer)
    metric = _metric(trainer, monitor)
    old = points.get(size)
    if old is not None and not _better(metric, old.metric, mode):
        return points
    path = folder / f"size-{size}-epoch={trainer.current_epoch}-step={trainer.global_step}.ckpt"
    save_weights(trainer, path)
    if old is not None and old.path != str(path) and trainer.is_global_zero:
        Path(old.path).unlink(missing_ok=True)
    return _with_point(points, trainer, Point(size, now.params, now.macs, monitor, metric, str(path)), part)


def with_dense(
    points: dict[int, Point], trainer: L.Trainer, dense: Amounts, path: Path, *, part: str = ""
) -> dict[int, Point]:
    """The points with the dense network, which `path` holds."""
    monitor, _ = _monitor(trainer)
    metric = _metric(trainer, monitor)
    point = Point(0, dense.params, dense.macs, monitor, metric, str(path))
    return _with_point(points, trainer, point, part)


def _with_point(points: dict[int, Point], trainer: L.Trainer, point: Point, part: str) -> dict[int, Point]:
    """The points with a new one, which the table then holds too."""
    found = dict(sorted({**points, point.size: point}.items()))
    folder = checkpoint_folder(trainer, part)
    if folder is not None and trainer.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        _write(found, folder / TABLE)
    return found


def _write(points: dict[int, Point], table: Path) -> None:
    with whole_file(table) as draft, draft.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Point)])
        writer.writeheader()
        writer.writerows(asdict(each) for each in points.values())


def _metric(trainer: L.Trainer, monitor: str) -> float | None:
    """The value of a metric, that of rank 0 for all: checkpoints are written by all or none."""
    found = decided(trainer, lambda: trainer.callback_metrics.get(monitor))
    return None if found is None else float(found)


def _monitor(trainer: L.Trainer) -> tuple[str, str]:
    for checkpoint in of_kind(trainer.checkpoint_callbacks, ModelCheckpoint):
        if checkpoint.monitor is not None:
            return checkpoint.monitor, checkpoint.mode
    return "", "max"


def _better(new: float | None, old: float | None, mode: str) -> bool:
    """Whether a new value replaces an old one; without a metric the later one does."""
    if new is None or old is None:
        return True
    return new > old if mode == "max" else new < old
