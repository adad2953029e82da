"""Sensitivity of a LightningModule's groups, by the metric that it logs itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
from torch import nn

from seg_pruning.callbacks.checks import check_one_device
from seg_pruning.callbacks.example import example_like, example_of, image_shape
from seg_pruning.profiling.progress import progress_bar
from seg_pruning.pruning import criteria
from seg_pruning.pruning.criteria import Criterion
from seg_pruning.pruning.protection import names_of
from seg_pruning.pruning.recalibration import recalibrate_, tracking_norms
from seg_pruning.pruning.sensitivity import RATIOS, Mode, check_ratios, sensitivity
from seg_pruning.pruning.sensitivity_record import SensitivityRecord, SensitivityRow
from seg_pruning.report.batches import (
    Loaders,
    batches_digest,
    each_loader,
    first_batches,
    flat_loaders,
    image_of,
    serving,
)
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.trial import trace
from seg_pruning.tasks import SemanticSegmentation


@dataclass(frozen=True)
class SensitivityOptions:
    """What is measured, and on how much data.

    Attributes:
        metric: a key that validation logs.
        mode: whether a higher ("max") or a lower ("min") value is better.
        criterion: which channels leave first: a name or a criterion.
        ratios: shares of a group to remove, each in (0, 1).
        protect: names of groups, layers or modules, or patterns, that are not cut.
        limit: batches of validation for each point, and of training for a criterion that needs data; None for
            all. Those of a number are kept in memory.
        recalibrate: training batches on which the statistics of BatchNorm are taken anew after each cut;
            0 leaves them.
    """

    metric: str = "val/dice"
    mode: Mode = "max"
    criterion: str | Criterion = "l2"
    ratios: Sequence[float] = RATIOS
    protect: Sequence[str] = ()
    limit: int | None = 8
    recalibrate: int = 0

    def __post_init__(self) -> None:
        check_ratios(self.ratios)
        names_of(self.protect)
        criteria.get(self.criterion)
        for name, value, least in (("limit", self.limit, 1), ("recalibrate", self.recalibrate, 0)):
            if value is not None and value < least:
                raise PruningError(f"expected {name} to be {least} or more batches, but got {value}")


def measure_sensitivity(
    trainer: L.Trainer,
    model: L.LightningModule,
    datamodule: L.LightningDataModule,
    options: SensitivityOptions = SensitivityOptions(),
    *,
    path: Path | None = None,
    ckpt_path: str | Path | None = None,
    weights_only: bool | None = None,
) -> tuple[SensitivityRow, ...]:
    """Validates `model` with each prunable group cut alone, at each ratio, and records it in a CSV file.

    Args:
        trainer: of one device. Its number of validation batches is `options.limit` from now on.
        model: whole again at the end, with the weights of `ckpt_path` where one is given.
        datamodule: of the validation batches, and of the training batches that `options` ask for.
        options: metric, criterion, ratios, data.
        path: the CSV file, on which a run that was interrupted goes on; None writes nothing.
        ckpt_path: a checkpoint to measure, as in ``trainer.validate``.
        weights_only: as in ``torch.load``.

    Raises:
        PruningError: several devices, a metric that is not logged, a criterion of gradients for a module that
            is none of our tasks, or a file of something else; and as `sensitivity`.
    """
    check_one_device(trainer, what="sensitivity is measured")
    _load_(trainer, model, datamodule, options, ckpt_path=ckpt_path, weights_only=weights_only)
    bench = _Bench.of(trainer, model, datamodule, options)
    graph = trace(model, bench.inputs())
    with serving(datamodule, bench.batches), progress_bar("sensitivity") as progress:
        rows = sensitivity(
            graph,
            model,
            bench.evaluate,
            criterion=options.criterion,
            ratios=options.ratios,
            mode=options.mode,
            protect=options.protect,
            data=bench.samples(),
            loss=model.loss if isinstance(model, SemanticSegmentation) else None,
            record=None if path is None else SensitivityRecord(path, bench.about()),
            progress=progress,
        )
        return tuple(rows)


def _load_(
    trainer: L.Trainer,
    model: L.LightningModule,
    datamodule: L.LightningDataModule,
    options: SensitivityOptions,
    *,
    ckpt_path: str | Path | None,
    weights_only: bool | None,
) -> None:
    """Loads the checkpoint by a validation of one batch, which also tells what is logged."""
    trainer.limit_val_batches = 1
    trainer.validate(
        model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=weights_only, verbose=False
    )
    trainer.limit_val_batches = 1.0
    logged = trainer.callback_metrics
    if options.metric not in logged:
        raise PruningError(
            f"validation logs no {options.metric!r}; choose as metric one of {', '.join(logged) or 'none'}"
        )


@dataclass(frozen=True)
class _Bench:
    """The module, and the batches on which each of its cuts is judged."""

    trainer: L.Trainer
    model: L.LightningModule
    datamodule: L.LightningDataModule
    options: SensitivityOptions
    batches: Loaders
    training: Sequence[Any] = field(repr=False)

    @classmethod
    def of(
        cls,
        trainer: L.Trainer,
        model: L.LightningModule,
        datamodule: L.LightningDataModule,
        options: SensitivityOptions,
    ) -> "_Bench":
        """Draws the batches."""
        batches = each_loader(
            datamodule.val_dataloader(), lambda loader: first_batches(loader, options.limit)
        )
        return cls(trainer, model, datamodule, options, batches, _training(model, datamodule, options))

    @property
    def first(self) -> Any:
        """The first batch of validation."""
        return next(iter(flat_loaders(self.batches)[0]))

    def inputs(self) -> Inputs:
        """What the module says that it is called with, or noise of the shape of an image, in its dtype."""
        given = example_of(self.model)
        dtype = self.model.dtype
        assert not isinstance(dtype, str)
        return example_like(image_shape(self.first)).to(dtype=dtype) if given is None else given

    def samples(self) -> Iterator[object]:
        """What scores are computed on: inputs of the training batches, with targets where a loss is known."""
        paired = isinstance(self.model, SemanticSegmentation)
        for batch in self.training[: self.options.limit]:
            yield (batch["image"], batch["mask"]) if paired else image_of(batch)

    def about(self) -> dict[str, str | int | None]:
        """What the numbers are of, beside network and criterion."""
        return {
            "metric": self.options.metric,
            "data": batches_digest(batch for loader in flat_loaders(self.batches) for batch in loader),
            "limit": self.options.limit,
            "recalibrate": self.options.recalibrate,
            "training data": batches_digest(self.training) if self.training else None,
            "precision": str(self.trainer.precision),
        }

    def evaluate(self, model: nn.Module) -> float:
        """The metric of the module as it is now."""
        if self.options.recalibrate:
            strategy = self.trainer.strategy
            self.model.to(strategy.root_device)
            drawn = (strategy.batch_to_device(batch) for batch in self.training[: self.options.recalibrate])
            images = (Inputs.of(image_of(batch)) for batch in drawn)
            recalibrate_(self.model, tracking_norms(self.model), images)
        self.trainer.validate(self.model, datamodule=self.datamodule, verbose=False)
        return float(self.trainer.callback_metrics[self.options.metric])


def _training(
    model: L.LightningModule, datamodule: L.LightningDataModule, options: SensitivityOptions
) -> list[Any]:
    """The training batches that scores and recalibration need."""
    criterion = criteria.get(options.criterion)
    scored = criterion.needs != "weights"
    if criterion.needs_loss and not isinstance(model, SemanticSegmentation):
        raise PruningError(
            f"criterion {options.criterion!r} needs a loss of output and target, which is known of "
            f"SemanticSegmentation only and not of {type(model).__name__}: choose one without, such as 'l2', "
            "or call seg_pruning.pruning.sensitivity.sensitivity yourself"
        )
    if not scored and not options.recalibrate:
        return []
    datamodule.setup("fit")
    count = max(options.limit or 0, options.recalibrate) if scored else options.recalibrate
    everything = scored and options.limit is None
    return list(islice(datamodule.train_dataloader(), None if everything else count))
