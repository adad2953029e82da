"""What would spoil a pruning in the middle of a training, found before it begins."""

import math
from collections.abc import Sequence, Sized

import lightning as L
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from seg_pruning.callbacks.options import Scoring
from seg_pruning.callbacks.scoring import TrainingScores
from seg_pruning.callbacks.timing import Timing
from seg_pruning.packages import twins
from seg_pruning.pruning import schedules
from seg_pruning.pruning.criteria import Criterion
from seg_pruning.pruning.schedules import Unit
from seg_pruning.surgery.errors import PruningError


def check_one_device(trainer: L.Trainer, *, what: str) -> None:
    """Raises where the network is spread or copied over devices: copies would not be cut.

    Args:
        trainer: the trainer.
        what: the beginning of the message, up to "on one device".
    """
    if trainer.world_size > 1 or not isinstance(trainer.strategy, twins(SingleDeviceStrategy)):
        raise PruningError(
            f"{what} on one device; the trainer has {trainer.world_size} with "
            f"{type(trainer.strategy).__name__}. Set devices=1 and strategy='auto'"
        )


def check_strategy(trainer: L.Trainer) -> None:
    """Raises where the network would be cut on one process and not on the others, or is not whole on any.

    One device works, and so do several processes with a whole copy each (DDP), unless they are spawned or
    forked: these hand their weights back to a process whose network was never cut.
    """
    strategy = trainer.strategy
    if isinstance(strategy, twins(SingleDeviceStrategy)):
        return
    copies = isinstance(strategy, twins(DDPStrategy)) and not isinstance(strategy, twins(DeepSpeedStrategy))
    if not copies:
        raise PruningError(
            f"IterativePruning needs the whole network on each device, which {type(strategy).__name__} does "
            "not keep there: choose strategy='ddp', or devices=1 and strategy='auto'"
        )
    if isinstance(strategy.launcher, twins(_MultiProcessingLauncher)):
        raise PruningError(
            "IterativePruning does not work with processes that are spawned or forked, as strategy="
            "'ddp_spawn', 'ddp_fork' and 'ddp_notebook' do: they hand weights back to a network that was "
            "never cut. Choose strategy='ddp', or devices=1"
        )


def check_apart(module: str, others: Sequence[str], guard: object | None) -> None:
    """Raises where two callbacks would prune the same network, or one could take back another's cuts.

    Args:
        module: the name of the part that a callback prunes; empty for the whole.
        others: those of the other callbacks.
        guard: the callback's floor on metrics, if it has one.
    """
    for other in others:
        longer, shorter = sorted((f"{module}.", f"{other}."), key=len, reverse=True)
        if not module or not other or longer.startswith(shorter):
            raise PruningError(
                f"two IterativePruning callbacks prune {module or 'the whole module'!r} and "
                f"{other or 'the whole module'!r}, of which one holds the other: give each "
                "module=... with a part of its own, or leave one out"
            )
    if others and guard is not None:
        raise PruningError(
            "a floor on metrics takes back all that was trained since a cut, the cuts of other parts too: "
            f"leave max_drop and min out of the budget of {module!r}, or prune one part at a time"
        )


def check_epochs(trainer: L.Trainer, epochs: Sequence[int]) -> None:
    """Raises where `max_epochs` leaves no epoch to recover after the last cut."""
    if epochs and not _trial_run(trainer):
        schedules.events(epochs[0], 1, epochs[-1], trainer.max_epochs)


def check_steps(trainer: L.Trainer, epochs: Sequence[int]) -> None:
    """Raises where `max_steps` ends the training before one epoch of recovery; call it when data is known."""
    batches = trainer.num_training_batches
    if _trial_run(trainer) or trainer.max_steps < 0 or math.isinf(batches):
        return
    if not trainer.lightning_module.automatic_optimization:
        return  # how often it steps in an epoch is its own business
    steps = math.ceil(batches / trainer.accumulate_grad_batches)
    if trainer.max_steps < (epochs[-1] + 1) * steps:
        raise PruningError(
            f"max_steps={trainer.max_steps} are {trainer.max_steps / steps:.1f} epochs of {steps} steps, but "
            f"the last cut is at the start of epoch {epochs[-1]} (counted from 0) and one epoch of recovery "
            f"follows: choose max_steps={(epochs[-1] + 1) * steps} or more, or an earlier end_epoch"
        )


def check_last_step(trainer: L.Trainer, last: int) -> None:
    """Raises where the training has no optimizer step after the cut before step `last`."""
    batches = trainer.num_training_batches
    if _trial_run(trainer) or not trainer.lightning_module.automatic_optimization:
        return
    ends = [float(trainer.max_steps)] if trainer.max_steps >= 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0 and not math.isinf(batches):
        ends.append(trainer.max_epochs * math.ceil(batches / trainer.accumulate_grad_batches))
    if ends:
        schedules.events(last, 1, None, int(min(ends)), unit="step")


def check_not_missed(now: int, missed: Sequence[int], unit: Unit = "epoch") -> None:
    """Raises where a training that goes on at epoch or step `now` is past cuts that were never made."""
    if missed:
        raise PruningError(
            f"training goes on at {unit} {now} (counted from 0), but the cuts of {unit}s "
            f"{', '.join(map(str, missed[:10]))} were not made before: choose start_{unit}={now + 1} or later"
        )


def check_observed(now: int, scores: TrainingScores, unit: Unit = "epoch") -> None:
    """Raises where a cut is due as training begins at `now`, and nothing gave scores before."""
    if not scores.ready:
        raise PruningError(
            f"a cut is due as training goes on at {unit} {now} (counted from 0), but "
            f"{type(scores.criterion).__name__} needs the gradients of at least one {unit} before it: choose "
            f"start_{unit}={now + 1} or later, or a criterion of weights such as 'l2'"
        )


def check_penalty(scoring: Scoring, scales: Sized) -> None:
    """Raises where a penalty on BatchNorm was asked for and there is none whose channels can leave."""
    if scoring.bn_penalty and not len(scales):
        raise PruningError(
            f"bn_penalty={scoring.bn_penalty} changes nothing: no BatchNorm with a scale has channels that "
            "can leave. Set it to 0, or protect less; trace(model, example_inputs).report() says what is "
            "pinned"
        )


def check_start(criterion: Criterion, timing: Timing) -> None:
    """Raises where the first cut comes before any gradient that `criterion` needs."""
    if criterion.needs != "weights" and timing.times[0] == 0:
        raise PruningError(
            f"{type(criterion).__name__} needs the gradients of at least one {timing.unit}, but "
            f"start_{timing.unit} is 0; start at {timing.unit} 1 or later, or choose a criterion of weights "
            "such as 'l2'"
        )


def check_times(trainer: L.Trainer, timing: Timing) -> None:
    """Raises where the training ends too early for the last cut; call it when the data is known."""
    if timing.unit == "epoch":
        check_steps(trainer, timing.times)
    else:
        check_last_step(trainer, timing.last)


def _trial_run(trainer: L.Trainer) -> bool:
    """Whether this is Lightning's run of a few batches that looks for errors in the code."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
