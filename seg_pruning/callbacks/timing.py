"""When cuts are due: by epoch or by optimizer step."""

from __future__ import annotations

from dataclasses import dataclass

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from seg_pruning.callbacks.options import Schedule
from seg_pruning.pruning import schedules
from seg_pruning.pruning.schedules import Unit
from seg_pruning.surgery.errors import PruningError


@dataclass(frozen=True)
class Timing:
    """The times of the cuts.

    Attributes:
        unit: what they are counted in.
        times: ascending; at least one.
        every: from one to the next, also beyond the last.
    """

    unit: Unit
    times: tuple[int, ...]
    every: int

    @classmethod
    def of(cls, schedule: Schedule, start_epoch: int, every_n_epochs: int, end_epoch: int | None) -> Timing:
        """By optimizer step where the schedule says so, otherwise by epoch.

        Raises:
            PruningError: a number is out of range, or both steps and epochs were chosen.
        """
        if not schedule.by_step:
            times = schedules.events(start_epoch, every_n_epochs, end_epoch, None)
            return cls("epoch", times, every_n_epochs)
        if (start_epoch, every_n_epochs, end_epoch) != (1, 1, None):
            raise PruningError(
                f"cuts are by step or by epoch, but {schedule} was given beside start_epoch={start_epoch}, "
                f"every_n_epochs={every_n_epochs}, end_epoch={end_epoch}: leave these out, or its steps"
            )
        return cls("step", schedule.steps, schedule.every_n_steps or 1)

    @property
    def last(self) -> int:
        """The time of the last planned cut."""
        return self.times[-1]

    def now(self, trainer: L.Trainer) -> int:
        """The present epoch, or how many steps the optimizer has taken."""
        return trainer.global_step if self.unit == "step" else trainer.current_epoch

    def due(self, now: int, done: list[int], *, on: bool) -> int | None:
        """The time whose cut is to be made now; None where there is none.

        Args:
            now: the present time. Steps may jump over a planned one, where several optimizers share a batch:
                its cut is made at the next.
            done: times that had their cut.
            on: whether cuts go on with the same interval beyond the last planned one.

        Example:
            >>> timing = Timing("step", (4, 8), 4)
            >>> timing.due(9, [4], on=False), timing.due(9, [4, 8], on=True), timing.due(13, [4, 8], on=True)
            (8, None, 12)
        """
        if self.unit == "epoch":
            planned = now in self.times or (on and now > self.last and (now - self.last) % self.every == 0)
            return now if planned and now not in done else None
        beyond = (now - self.last) // self.every * self.every if on and now > self.last else 0
        reached = [time for time in (*self.times, self.last + beyond) if time <= now]
        return reached[-1] if reached and reached[-1] not in done else None

    def near(self, trainer: L.Trainer, batch_idx: int, batches: int) -> bool:
        """Whether the batch that begins is one of the last `batches` before a time at which a cut may be."""
        if self.unit == "epoch":
            left = trainer.num_training_batches - batch_idx
            return left <= batches or left == float("inf")
        now = trainer.global_step
        left = self.times[0] - now if now < self.times[0] else self.every - (now - self.times[0]) % self.every
        return left * trainer.accumulate_grad_batches <= batches + trainer.accumulate_grad_batches

    def missed(self, trainer: L.Trainer, done: list[int]) -> list[int]:
        """Planned times that are past and had no cut."""
        now = self.now(trainer)
        if self.unit == "epoch":
            return [time for time in self.times if time < now and time not in done]
        # Where several optimizers share a batch, its steps count together.
        latest = max(done, default=-1)
        return [time for time in self.times if latest < time <= now - max(1, len(trainer.optimizers))]


def between_steps(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether no backward pass waits for others to be accumulated, as a batch starts."""
    return batch_idx % trainer.accumulate_grad_batches == 0


def near_validation(trainer: L.Trainer, batch_idx: int, batches: int) -> bool:
    """Whether the batch that begins may be one of the last before a validation or the end of the epoch."""
    every = trainer.val_check_batch
    if every is None or trainer.check_val_every_n_epoch is None:
        return True  # by the clock, or counted over epochs
    ends = [float(trainer.num_training_batches - batch_idx)]
    if every != float("inf"):
        ends.append(every - batch_idx % every)
    if trainer.max_steps >= 0:
        ends.append(float((trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches))
    return min(ends) <= batches or ends == [float("inf")]


def fits(trainer: L.Trainer) -> bool:
    """Whether a validation is one of training itself, and not the trial before it."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
