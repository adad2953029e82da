"""Lightning's Trainer with what the command line can do beyond it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import lightning as L
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from rich.console import Console

from seg_pruning.pruning.criteria import Criterion
from seg_pruning.pruning.sensitivity import RATIOS, Mode
from seg_pruning.pruning.sensitivity_record import SensitivityRow, tolerated_floors
from seg_pruning.report.sensitivity import SensitivityOptions, measure_sensitivity
from seg_pruning.report.sensitivity_figure import check_plotting, save_figure
from seg_pruning.surgery.atomic import replace_text


class PruningTrainer(L.Trainer):
    """A `Trainer` that can look at a network as well as train it."""

    def sensitivity(
        self,
        model: L.LightningModule,
        datamodule: L.LightningDataModule,
        folder: str | Path = "runs/sensitivity",
        *,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
        metric: str | None = None,
        mode: Mode | None = None,
        criterion: str | Criterion = "l2",
        ratios: Sequence[float] = RATIOS,
        protect: Sequence[str] = (),
        limit: int | None = 8,
        recalibrate: int = 0,
        max_drop: float | None = None,
        picture: bool = True,
    ) -> tuple[SensitivityRow, ...]:
        """Cut each group alone at several ratios, and look at the metric.

        Writes ``sensitivity.csv`` row by row (``sensitivity.json`` says what it is of), ``sensitivity.png``,
        and with `max_drop` ``floors.yaml``. A run that was interrupted goes on. A trial (``fast_dev_run``)
        looks at one batch and one ratio and writes nothing.

        Args:
            model: The module.
            datamodule: Its data.
            folder: Where files go.
            ckpt_path: The checkpoint to measure.
            weights_only: As in ``torch.load``.
            metric: A key that validation logs; the one that checkpoints are chosen by if none is given.
            mode: Whether a higher (max) or a lower (min) value is better. By default as for checkpoints, or
                for another metric min where its name ends in loss.
            criterion: Which channels leave first: a name or a criterion.
            ratios: Shares of a group to remove, each in (0, 1).
            protect: Names of groups, layers or modules, or patterns, that are not cut.
            limit: Batches of validation for each point; null for all.
            recalibrate: Training batches on which BatchNorm's statistics are taken anew after each cut.
            max_drop: Writes for each group the fraction of its channels to keep so that the metric drops by
                no more than this.
            picture: Whether to draw.
        """
        options = SensitivityOptions(
            *_monitored(self, metric, mode),
            criterion=criterion,
            ratios=ratios,
            protect=protect,
            limit=limit,
            recalibrate=recalibrate,
        )
        measure = partial(
            measure_sensitivity, self, model, datamodule, ckpt_path=ckpt_path, weights_only=weights_only
        )
        if self.fast_dev_run:  # type: ignore[attr-defined] # Lightning does not type it
            return measure(replace(options, limit=1, ratios=options.ratios[:1]))
        return _written(measure, options, Path(folder), max_drop=max_drop, picture=picture)


def _written(
    measure: Callable[..., tuple[SensitivityRow, ...]],
    options: SensitivityOptions,
    folder: Path,
    *,
    max_drop: float | None,
    picture: bool,
) -> tuple[SensitivityRow, ...]:
    """What `measure` finds, with its files in `folder`; what cannot be drawn or asked is refused before."""
    if picture:
        check_plotting()
    if max_drop is not None:
        tolerated_floors((), max_drop=max_drop)
    path = folder / "sensitivity.csv"
    rows = measure(options, path=path)
    if picture:
        save_figure(rows, folder / "sensitivity.png", metric=options.metric)
    if max_drop is not None:
        floors = tolerated_floors(rows, max_drop=max_drop)
        replace_text(folder / "floors.yaml", yaml.safe_dump(floors, sort_keys=False))
    Console().print(f"Sensitivity of {len({row.group for row in rows})} groups: {path}", highlight=False)
    return rows


def _monitored(trainer: L.Trainer, metric: str | None, mode: Mode | None) -> tuple[str, Mode]:
    """The metric and its direction, as checkpoints are chosen where the user does not say."""
    chosen = trainer.checkpoint_callback
    monitor = chosen.monitor if isinstance(chosen, ModelCheckpoint) else None
    name = metric or monitor or "val/dice"
    if mode is not None:
        return name, mode
    if isinstance(chosen, ModelCheckpoint) and name == monitor:
        return name, "min" if chosen.mode == "min" else "max"
    return name, "min" if name.endswith("loss") else "max"
