"""The best checkpoint of every size that a run reaches, and a table of them."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from seg_pruning.callbacks.averages import save_weights
from seg_pruning.callbacks.dense import checkpoint_folder
from seg_pruning.callbacks.ranks import decided
from seg_pruning.packages import of_kind
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
    metric = monitored(trainer)
    old = points.get(size)
    if not decided(trainer, lambda: old is None or _replaces(metric, old, mode)):
        return points
    path = folder / f"size-{size}-epoch={trainer.current_epoch}-step={trainer.global_step}.ckpt"
    save_weights(trainer, path)
    point = Point(size, now.params, now.macs, monitor, metric, str(path))
    found = _with_point(points, trainer, point, part)
    if old is not None and old.path != str(path) and trainer.is_global_zero:
        Path(old.path).unlink(missing_ok=True)  # last, so that the table never lists a file that is gone
    return found


def with_dense(
    points: dict[int, Point],
    trainer: L.Trainer,
    dense: Amounts,
    metric: float | None,
    path: Path,
    *,
    part: str = "",
) -> dict[int, Point]:
    """The points with the dense network, which `path` holds, and what its last validation found."""
    monitor, _ = _monitor(trainer)
    point = Point(0, dense.params, dense.macs, monitor, metric, str(path))
    return _with_point(points, trainer, point, part)


def monitored(trainer: L.Trainer) -> float | None:
    """The value by which checkpoints are chosen, from the last validation of rank 0."""
    found = decided(trainer, lambda: trainer.callback_metrics.get(_monitor(trainer)[0]))
    return None if found is None else float(found)


def _with_point(points: dict[int, Point], trainer: L.Trainer, point: Point, part: str) -> dict[int, Point]:
    """The points with a new one, which the table then holds too."""
    found = dict(sorted({**points, point.size: point}.items()))
    folder = checkpoint_folder(trainer, part)
    if folder is not None and trainer.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        _write(found, folder / TABLE)
    return found


def _write(points: dict[int, Point], table: Path) -> None:
    with whole_file(table, alone=True) as draft, draft.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Point)])
        writer.writeheader()
        writer.writerows(asdict(each) for each in points.values())


def _monitor(trainer: L.Trainer) -> tuple[str, str]:
    for checkpoint in of_kind(trainer.checkpoint_callbacks, ModelCheckpoint):
        if checkpoint.monitor is not None:
            return checkpoint.monitor, checkpoint.mode
    return "", "max"


def _replaces(metric: float | None, old: Point, mode: str) -> bool:
    # Without its file it is no point: of two runs from one checkpoint the other may have replaced it.
    return not Path(old.path).is_file() or _better(metric, old.metric, mode)


def _better(new: float | None, old: float | None, mode: str) -> bool:
    """Whether a new value replaces an old one; without a metric the later one does."""
    if new is None or old is None:
        return True
    return new > old if mode == "max" else new < old
