"""What a run tells its loggers beside training curves: its config, pruning events, the final summary."""

from collections.abc import Iterator, Mapping

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from . import weights_and_biases

EVENT_AXIS = "prune/step"
"""The number of a pruning event, against which all ``prune/`` metrics are drawn."""


@rank_zero_only
def log_config(trainer: L.Trainer, config: Mapping[str, object]) -> None:
    """Sends the whole config of a run, which Lightning's command line keeps to itself.

    Args:
        trainer: The trainer, once its loggers may start (from `setup` on).
        config: Plain types.
    """
    for logger in trainer.loggers:
        logger.log_hyperparams(dict(config))


@rank_zero_only
def log_event(trainer: L.Trainer, values: Mapping[str, float]) -> None:
    """Sends the numbers of one pruning event.

    Args:
        trainer: The trainer.
        values: By names that begin with ``prune/``; among them ``prune/step``, the number of the event.

    Raises:
        ValueError: If ``prune/step`` is missing, or a name begins otherwise.
    """
    strangers = [name for name in values if not name.startswith("prune/")]
    if strangers or EVENT_AXIS not in values:
        raise ValueError(
            f"An event has {EVENT_AXIS!r} and otherwise names that begin with 'prune/'; got "
            f"{sorted(values)[:10]}."
        )
    for logger in trainer.loggers:
        if not weights_and_biases.log_on_own_axis(logger, values, axis=EVENT_AXIS):
            logger.log_metrics(dict(values), step=trainer.global_step)
            logger.save()


@rank_zero_only
def log_final(trainer: L.Trainer, summary: Mapping[str, object]) -> None:
    """Sends what a run ended with, as ``final/<name>``; nested names are joined by ``/``.

    W&B gets all values in its summary, other loggers get the numbers as metrics.

    Args:
        trainer: The trainer.
        summary: Values by name, such as ``{"dense": {"params": 100}}``.
    """
    values = dict(_flat(summary, "final"))
    numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
    for logger in trainer.loggers:
        if not weights_and_biases.write_summary(logger, values):
            logger.log_metrics(numbers, step=trainer.global_step)
            logger.save()


def _flat(values: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}/{name}")
        else:
            yield f"{prefix}/{name}", value
