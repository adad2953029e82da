"""The command line: Lightning's, with our tasks and data by short names, and a new folder for each run."""

import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
from typing_extensions import override

import seg_pruning
from seg_pruning import tracking
from seg_pruning.callbacks import DENSE_CHECKPOINT, IterativePruning
from seg_pruning.data import BaseDataModule
from seg_pruning.report import Summary, summarise
from seg_pruning.report.trainer import PruningTrainer
from seg_pruning.surgery.errors import PruningError
from seg_pruning.tasks import MaskWriter, SemanticSegmentation, check_checkpoint

_NAMED_CHECKPOINTS = ("best", "last", "hpc")  # Lightning finds these itself
_WRITING = ("fit", "predict")  # the subcommands that leave a run folder


class SaveConfig(SaveConfigCallback):
    """Writes ``config.yaml`` and sends the config to the loggers, which Lightning's own does not."""

    @override
    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Sends the config."""
        tracking.log_config(trainer, yaml.safe_load(self.parser.dump(self.config, skip_none=False)))


class SegmentationCLI(LightningCLI):
    """Lightning's command line with a run folder, loggers that never ask, and checks before training."""

    folder: Path  # of the subcommands that write one

    @staticmethod
    @override
    def subcommands() -> dict[str, set[str]]:
        """Gives Lightning's subcommands and ours, each with the arguments that are not the user's to give."""
        return {**LightningCLI.subcommands(), "sensitivity": {"model", "datamodule", "folder"}}

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds ``run``, the folder to write, and ``checkpoint``, what to keep in it."""
        parser.add_class_arguments(tracking.RunFolder, "run")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/dice",
                "checkpoint.mode": "max",
                "checkpoint.save_last": True,
                "checkpoint.filename": "best-epoch{epoch:03d}",
                "checkpoint.auto_insert_metric_name": False,  # it would write the slash of val/dice
            }
        )

    @override
    def _parse_ckpt_path(self) -> None:
        """Leaves the config alone: in Lightning a checkpoint's settings silently win over given flags."""

    @override
    def before_instantiate_classes(self) -> None:
        """Checks what needs nothing built, and chooses the run folder."""
        config = self.config[self.subcommand]
        goes_on = config.get("ckpt_path") == "last" and config.checkpoint.dirpath is None
        if goes_on:
            config.ckpt_path = self._last()
        path = config.get("ckpt_path")
        # A colon is of "registry:..." or of a URL, unless it ends a drive of Windows.
        if path and path not in _NAMED_CHECKPOINTS and ":" not in str(path).replace(":\\", ""):
            check_checkpoint(path)
            if self.subcommand != "fit" and config.checkpoint.dirpath is None:
                # Where the file lies: otherwise Lightning warns that its checkpoints have moved.
                config.checkpoint.dirpath = str(Path(path).resolve().parent)
        if self._leaves_folder():
            run = tracking.RunFolder(config.run.root, config.run.name)
            # Only the first process of a run writes a folder; the others may find that it exists already.
            others = getattr(rank_zero_only, "rank", 0) != 0
            self.folder = run.choose(datetime.now(), goes_on=goes_on or others).resolve()

    def _last(self) -> str | None:
        """The last checkpoint of the runs: Lightning would look in this one's folder, which is new."""
        run = self.config[self.subcommand].run
        found = tracking.RunFolder(run.root, run.name).last()
        if found is not None:
            rank_zero_info(f"last checkpoint: {found}")
            return str(found)
        what = f"no run {run.name or ''} in {run.root} has left a last.ckpt".replace("  ", " ")
        if self.subcommand != "fit":
            raise PruningError(f"{what}: name the file, --ckpt_path FILE")
        # No error: one command serves the first run and all others.
        rank_zero_info(f"{what}: training begins anew")
        return None

    @override
    def instantiate_classes(self) -> None:
        """Builds all objects; an error of ours comes out as it was raised, not wrapped by jsonargparse."""
        try:
            super().instantiate_classes()
        except (TypeError, ValueError) as error:
            ours = next(filter(_is_ours, _causes(error)), None)
            if ours is None:
                raise
            raise ours from None

    @override
    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Gives the trainer, whose files all go to the run folder."""
        config = self._get(self.config_init, "trainer")
        if config.enable_checkpointing is False or config.fast_dev_run:
            self._parser(self.subcommand).callback_keys.remove("checkpoint")
        if self.subcommand == "sensitivity":  # whose many validations are one measurement
            self.save_config_callback = None
            kwargs |= {"logger": False, "enable_progress_bar": False}
            return super().instantiate_trainer(**kwargs)
        if not self._leaves_folder():
            self.save_config_callback = None
            loggers = config.logger if config.logger not in (None, True) else False
            return super().instantiate_trainer(logger=loggers, **kwargs)
        if self.subcommand == "predict":
            self.trainer_defaults["callbacks"] = MaskWriter(self.folder / "masks")
        loggers = tracking.choose_loggers(config.logger, folder=self.folder)
        root = config.default_root_dir or self.folder
        return super().instantiate_trainer(logger=loggers, default_root_dir=root, **kwargs)

    @override
    def after_instantiate_classes(self) -> None:
        """Checks what the model and the data say of each other."""
        if isinstance(self.model, SemanticSegmentation) and isinstance(self.datamodule, BaseDataModule):
            _check_classes(self.model, self.datamodule)

    def fit(self, **arguments: Any) -> None:
        """Trains in a new run folder, which is gone again if nothing came of it."""
        with self._new_folder():
            self.trainer.fit(**arguments)
            callbacks = self.trainer.callbacks  # type: ignore[attr-defined] # Lightning does not type it
            pruning = next((c for c in callbacks if isinstance(c, IterativePruning)), None)
            if pruning is not None and pruning.finished and self._leaves_folder():
                summary = self._summarise(pruning)
                if summary is not None:
                    summary.show()

    def _summarise(self, pruning: IterativePruning) -> Summary | None:
        """Compares the network before the first cut, where it was kept, with the best after the last one."""
        best = self.trainer.checkpoint_callback
        folder = Path(best.dirpath) if isinstance(best, ModelCheckpoint) and best.dirpath else None
        checkpoints: dict[str, str | Path | None] = {}
        if folder is not None and (folder / DENSE_CHECKPOINT).is_file():
            checkpoints["dense"] = folder / DENSE_CHECKPOINT
        else:
            rank_zero_warn(
                f"no {DENSE_CHECKPOINT} of before the first cut was kept, so the pruned network is compared "
                "with nothing: leave enable_checkpointing on, or go on from a checkpoint with one beside it"
            )
        checkpoints["pruned"] = getattr(best, "best_model_path", None) or None
        return summarise(
            self.trainer,
            self.model,
            checkpoints=checkpoints,
            inputs=pruning.inputs,
            folder=self.folder,
            datamodule=self.datamodule,
            budget=pruning.budget,
        )

    def predict(self, **arguments: Any) -> None:
        """Writes a mask for each image into a new run folder."""
        with self._new_folder():
            self.trainer.predict(**{**arguments, "return_predictions": False})

    def sensitivity(self, **arguments: Any) -> None:
        """Measures into the folder of the run that the config names, or one of its own."""
        run = self._get(self.config, "run")
        trainer = self.trainer
        assert isinstance(trainer, PruningTrainer)
        trainer.sensitivity(folder=Path(run.root) / (run.name or "sensitivity"), **arguments)

    def _leaves_folder(self) -> bool:
        trial = self._get(self.config, "trainer").fast_dev_run
        return self.subcommand in _WRITING and not trial

    @contextmanager
    def _new_folder(self) -> Iterator[None]:
        if not self._leaves_folder():
            yield
            return
        with tracking.written(self.folder), tracking.close_new_runs(only_failed=True):
            for logger in self.trainer.loggers:
                if isinstance(logger, tracking.MetricsFile):
                    logger.open()
            yield


def main(args: ArgsType = None) -> SegmentationCLI:
    """Runs a subcommand and gives what it was run with.

    Args:
        args: The command line, as a list of words or a config. By default the one that the process got; then
            an error that the user can mend ends the process with its message alone and status 2.

    Raises:
        ValueError: For input that the user can mend, if `args` are given.
    """
    try:
        with tracking.close_new_runs():
            return SegmentationCLI(
                L.LightningModule,
                L.LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=SaveConfig,
                trainer_class=PruningTrainer,
                seed_everything_default=0,
                auto_configure_optimizers=False,  # a task makes its own, which pruning can carry on
                parser_kwargs={
                    "prog": "seg-pruning",
                    "description": "Trains, prunes and tests segmentation networks.",
                    "version": seg_pruning.__version__,
                },
                args=args,
            )
    except ValueError as error:
        if args is not None or not _is_ours(error):
            raise
        print(f"seg-pruning: error: {error}", file=sys.stderr)
        sys.exit(2)


def command() -> None:
    """Runs the subcommand that the process got; `main` for the shell, which takes an answer for a failure."""
    _quieten()
    main()


def _quieten() -> None:
    """Keeps off the terminal what a user of the command can do nothing about."""
    for message in (
        r".*LeafSpec.* is deprecated",  # Lightning's own use of torch
        r"Precision .* is not supported by the model summary",
        r".*does not have many workers",  # images come from memory
        r"The dirpath has changed",  # a resumed run has a folder of its own
    ):
        warnings.filterwarnings("ignore", message=message)
    advice = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    advice.addFilter(lambda record: "litlogger" not in record.getMessage())


def _is_ours(error: BaseException) -> bool:
    """Tells whether our code raised the error: then its message says all, and no traceback is needed."""
    modules = [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)]
    return isinstance(error, PruningError) or (
        isinstance(error, ValueError) and modules[-1].startswith("seg_pruning.")
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _check_classes(model: SemanticSegmentation, data: BaseDataModule) -> None:
    if len(model.classes) != data.classes:
        raise PruningError(
            f"The data has {data.classes} classes, the network {len(model.classes)} "
            f"({', '.join(model.classes)}), where 1 means foreground against background. "
            f"Set --model.init_args.classes to {data.classes}, or the classes of the data."
        )
