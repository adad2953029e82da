"""All that is particular to W&B: whether it can be used, an axis for events, its summary, the end of runs."""

import netrc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

from lightning.pytorch.loggers import Logger, WandbLogger

from seg_pruning.packages import twins
from seg_pruning.surgery.errors import PruningError

HINT = (
    "Metrics go to metrics.csv only. For W&B run `wandb login` once, or set WANDB_API_KEY, "
    "or WANDB_MODE=offline."
)
_KEYLESS_MODES = ("offline", "dryrun", "disabled")


def has_key() -> bool:
    """Tells whether an API key is at hand: in the environment, or stored by ``wandb login``."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    try:
        return host in netrc.netrc(str(file)).hosts
    except (OSError, netrc.NetrcParseError):
        return False


def is_wanted() -> bool:
    """Tells whether the environment asks for W&B: by a key, or by a mode other than ``disabled``."""
    mode = os.environ.get("WANDB_MODE", "")
    return mode != "disabled" and (bool(mode) or has_key())


def is_declined() -> bool:
    """Tells whether the environment says no to W&B, so that no hint is due."""
    return os.environ.get("WANDB_MODE") == "disabled"


def default_logger(folder: Path) -> Logger:
    """Gives the logger of a run whose config names none; W&B's files lie in the run folder."""
    project = os.environ.get("WANDB_PROJECT", "seg_pruning")
    return WandbLogger(project=project, name=folder.name, save_dir=folder)


def check_usable(logger: Logger) -> None:
    """Passes unless W&B would stop and ask for a key.

    Raises:
        PruningError: If the logger is of W&B and goes online without a key.
    """
    if not isinstance(logger, twins(WandbLogger)) or has_key():
        return
    # Lightning keeps the mode nowhere else, and once the run begins W&B has already asked.
    mode = logger._wandb_init.get("mode") or os.environ.get("WANDB_MODE", "")
    if mode in _KEYLESS_MODES or logger._offline:
        return
    raise PruningError(
        "The logger is W&B and there is no API key. Run `wandb login` once, or set WANDB_API_KEY, "
        "or give the logger `mode: offline`, or leave the logger out: metrics.csv is written in any case."
    )


def log_on_own_axis(logger: Logger, values: Mapping[str, float], *, axis: str) -> bool:
    """Logs values against one of them instead of the training step; False if the logger is not of W&B.

    W&B drops values that come with a step lower than the last one, so none is given; the axis is a value like
    the others.
    """
    if not isinstance(logger, twins(WandbLogger)):
        return False
    run = logger.experiment
    run.define_metric(axis)
    run.define_metric(f"{axis.partition('/')[0]}/*", step_metric=axis)
    run.log(dict(values))
    return True


def write_summary(logger: Logger, values: Mapping[str, object]) -> bool:
    """Writes values into the run's summary; False if the logger is not of W&B."""
    if not isinstance(logger, twins(WandbLogger)):
        return False
    logger.experiment.summary.update(dict(values))
    return True


@contextmanager
def close_new_runs(*, only_failed: bool = False) -> Iterator[None]:
    """Finishes the W&B run that began within the block, so that the process's next one is another run.

    Args:
        only_failed: Whether to leave it open when the block succeeds.
    """
    before = _running()
    failed = True
    try:
        yield
        failed = False
    finally:
        run = _running()
        if run is not None and run is not before and (failed or not only_failed):
            run.finish(exit_code=int(failed))  # type: ignore[attr-defined]


def _running() -> object | None:
    if "wandb" not in sys.modules:  # its import takes seconds, and where nobody did it there is no run
        return None
    import wandb

    return wandb.run
