"""Which loggers a run has: always its metrics.csv, and what was configured or the environment asks for."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from . import weights_and_biases

Configured: TypeAlias = Logger | Sequence[Logger] | bool | None


class MetricsFile(CSVLogger):
    """Writes ``metrics.csv`` right into the run folder, a row as soon as it is logged.

    It leaves out the hyperparameters: the run's ``config.yaml`` has them already.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(save_dir=folder, name="", version="", flush_logs_every_n_steps=1)

    def open(self) -> None:
        """Takes the folder into use; before W&B does, which Lightning starts first and then warns about."""
        _ = self.experiment

    @override
    def log_hyperparams(self, params: dict[str, Any] | Namespace | None = None) -> None:
        """Does nothing."""


def choose_loggers(configured: Configured, *, folder: Path) -> list[Logger]:
    """Gives the loggers of a run, metrics.csv first: beside it Lightning puts the run's other files.

    Nothing here connects or asks. With no logger configured, W&B is used where there is a key or
    ``WANDB_MODE``; else one line says how to switch it on.

    Args:
        configured: The trainer's argument ``logger``: ``None`` or ``True`` leave the choice to the
            environment, ``False`` means metrics.csv only.
        folder: The run folder.

    Raises:
        PruningError: If W&B is asked for and would have to ask for a key.
    """
    others = _others(configured, folder)
    for logger in others:
        weights_and_biases.check_usable(logger)
    return [MetricsFile(folder), *others]


def _others(configured: Configured, folder: Path) -> list[Logger]:
    if isinstance(configured, Logger):
        return [configured]
    if configured is False:
        return []
    if configured is not None and configured is not True:
        return list(configured)
    if weights_and_biases.is_wanted():
        return [weights_and_biases.default_logger(folder)]
    if not weights_and_biases.is_declined():
        rank_zero_info(weights_and_biases.HINT)
    return []
