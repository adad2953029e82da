"""The options of `IterativePruning` that come in groups: when, by which scores, and what follows a cut."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeGuard, get_args

from torch import Tensor

from seg_pruning.pruning import schedules
from seg_pruning.pruning.criteria import Criterion
from seg_pruning.surgery.errors import PruningError

Rewind: TypeAlias = Literal["none", "weights", "lr"]


@dataclass(frozen=True)
class Recovery:
    """What helps the network over a cut.

    Attributes:
        recalibrate: batches on which statistics of BatchNorm are estimated anew just before the first
            validation after a cut, 0 or more: the last ones that were trained on, or as many as there were.
            The default takes a moment and spares short epochs, in which running averages do not catch up with
            the cut, a validation of stale statistics; 0 leaves them to training.
        compensate: batches, 0 or more, over which the kept channels learn to say what the removed ones said,
            by least squares at the moment of a cut (see `compensation`): the last ones that were trained on
            before it, none before the first step. 0, the default, leaves that to training. Rewinding weights
            undoes it.
        rewarm: optimizer steps, 0 or more, over which the learning rate climbs in a straight line to what the
            scheduler says, after each cut. 0, the default, leaves the rate to the scheduler alone.
        rewind: "weights" sends the kept weights and the learning rate's schedule back to an early state
            after each cut, with fresh optimizer state (Frankle et al. 2020, https://arxiv.org/abs/1912.05671);
            "lr" sends back the schedule of the learning rate alone (Renda et al. 2020,
            https://arxiv.org/abs/2003.02389); "none", the default, is fine-tuning.
        rewind_to: the optimizer step, 0 or more, before which that early state is noted; the first cut, where
            that is sooner. 0, the default, is the state in which training begins, so that a training that
            starts from a trained network goes back to that.
    """

    recalibrate: int = 16
    compensate: int = 0
    rewarm: int = 0
    rewind: Rewind = "none"
    rewind_to: int = 0

    def __post_init__(self) -> None:
        for name in ("recalibrate", "compensate", "rewarm", "rewind_to"):
            _check_count(name, getattr(self, name))
        if self.rewind not in get_args(Rewind):
            raise PruningError(f"expected rewind to be one of {get_args(Rewind)}, but got {self.rewind!r}")
        if self.rewind_to and self.rewind == "none":
            raise PruningError(
                f"rewind_to={self.rewind_to} changes nothing without rewinding: give rewind='weights' or "
                "'lr' beside it, or leave it out"
            )


@dataclass(frozen=True)
class Schedule:
    """How much leaves at which cut, cuts by optimizer step, and recovery; a mere name stands for its `shape`.

    With any of the three steps given cuts are by optimizer step, as in Molchanov et al. 2019
    (https://arxiv.org/abs/1906.10771), in place of `start_epoch`, `every_n_epochs` and `end_epoch`. They fall
    between two steps of the optimizer, never between accumulated backward passes.

    Attributes:
        shape: ``cubic`` takes most at first, ``linear`` the same each time, ``exponential`` the same fraction
            of what is left, ``one_shot`` all at the first cut. The default is that of gradual pruning.
        start_step: optimizer steps before the first cut, 0 or more; by default `every_n_steps`.
        every_n_steps: optimizer steps from one cut to the next, 1 or more; by default 1.
        end_step: no cut is later; by default there is one cut. At least one step must remain after the last.
        recovery: what helps the network over each cut.
    """

    shape: str = "cubic"
    start_step: int | None = None
    every_n_steps: int | None = None
    end_step: int | None = None
    recovery: Recovery = field(default_factory=Recovery)

    def __post_init__(self) -> None:
        if not isinstance(self.shape, str):
            raise PruningError(f"expected shape to be a name such as 'cubic', but got {self.shape!r}")
        schedules.get(self.shape)
        if not isinstance(self.recovery, Recovery):
            raise PruningError(f"expected recovery to be a Recovery(...), but got {self.recovery!r}")
        if self.by_step:
            _ = self.steps

    @classmethod
    def of(cls, schedule: str | Schedule) -> Schedule:
        """The schedule whose shape has this name; a `Schedule` is its own answer.

        Raises:
            PruningError: no shape has this name.

        Example:
            >>> Schedule.of("linear").shape
            'linear'
        """
        return schedule if isinstance(schedule, Schedule) else cls(schedule)

    @property
    def by_step(self) -> bool:
        """Whether cuts are by optimizer step."""
        return any(step is not None for step in (self.start_step, self.every_n_steps, self.end_step))

    @property
    def steps(self) -> tuple[int, ...]:
        """The optimizer steps, counted from 0, before which cuts are due.

        Example:
            >>> Schedule(every_n_steps=20, end_step=60).steps
            (20, 40, 60)
        """
        every = 1 if self.every_n_steps is None else self.every_n_steps
        start = every if self.start_step is None else self.start_step
        return schedules.events(start, every, self.end_step, None, unit="step")


@dataclass(frozen=True)
class Scoring:
    """How channels are scored while a network trains; a mere criterion stands for itself with these defaults.

    Attributes:
        criterion: a name (``taylor``, ``l1``, ``l2``, ``random``, ...) or a `Criterion`.
        batches: 0 or more. 0, the default, reads what a criterion needs from the gradients of normal training
            steps, for free. Above 0 a criterion of gradients is computed in a pass of its own at each cut, in
            eval mode, over that many batches: the last ones that were trained on before it.
        loss: called in that pass with the output of the module's forward and the batch as the loader gave it,
            on the device of the module, gives a scalar. By default none: criteria that need a loss refuse.
        bn_penalty: 0 or more. Its product with the sign of each scale of a BatchNorm whose channels can leave
            is added to the gradients until the last cut: the subgradient of an L1 penalty (Network Slimming,
            Liu et al. 2017, https://arxiv.org/abs/1708.06519, which uses 1e-4 to 1e-5). After unscaling and
            accumulation, so that mixed precision does not change it; after scores were read, which are of the
            loss alone; before clipping, which bounds the whole step. 0, the default, changes no training.
    """

    criterion: str | Criterion = "taylor"
    batches: int = 0
    loss: Callable[[object, object], Tensor] | None = None
    bn_penalty: float = 0.0

    def __post_init__(self) -> None:
        _check_count("batches", self.batches)
        check_not_negative("bn_penalty", self.bn_penalty)
        if self.loss is not None and not self.batches:
            raise PruningError(
                "Scoring(loss=...) is for a pass of its own, and batches=0 says that there is none: say over "
                "how many batches, such as batches=8, or leave loss out"
            )

    @classmethod
    def of(cls, criterion: str | Criterion | Scoring) -> Scoring:
        """The scoring by a criterion; a `Scoring` is its own answer.

        Example:
            >>> Scoring.of("l2").criterion
            'l2'
        """
        return criterion if isinstance(criterion, Scoring) else cls(criterion)


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_not_negative(name: str, value: object) -> None:
    """Raises where the option `name` is no finite number of 0 or more."""
    if not is_number(value) or value < 0:
        raise PruningError(f"expected {name} to be 0 or more, but got {value!r}")


def _check_count(name: str, value: object) -> None:
    if type(value) is not int or value < 0:
        raise PruningError(f"expected {name} to be a whole number of 0 or more, but got {value!r}")
