"""Prune a network step by step while Lightning trains it."""

from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from seg_pruning.callbacks import averages, checks, pareto, penalty
from seg_pruning.callbacks.carried import carry_structure_
from seg_pruning.callbacks.cutting import Cutting
from seg_pruning.callbacks.dense import bring_dense, save_last_again
from seg_pruning.callbacks.example import REMEDY, Example, call_with_image
from seg_pruning.callbacks.floor import split
from seg_pruning.callbacks.guard import Guard
from seg_pruning.callbacks.options import Schedule, Scoring
from seg_pruning.callbacks.part import count, network_of, trains
from seg_pruning.callbacks.recovering import Recovering
from seg_pruning.callbacks.scoring import TrainingScores
from seg_pruning.callbacks.timing import Timing, between_steps, fits
from seg_pruning.callbacks.whole_checkpoints import write_whole_
from seg_pruning.pruning.budgets import Budget
from seg_pruning.pruning.criteria import Criterion
from seg_pruning.pruning.selection import Selection
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import Inputs


class IterativePruning(Cutting):
    """Removes channels of the module at chosen times of its training, until the budget holds.

    Each cut is certified, or rolled back with an error. Parameters stay the objects that optimizers know,
    and the state of optimizers is cut with them; nothing else of a project changes. Scores are read from
    normal training steps, or from batches that training has just seen: no loader is asked for more. At each
    cut checkpoints, early stopping and plateau schedulers forget the best that they saw, so that "best" is
    never a network denser than the present one; the best of each size is kept beside them, with a table.

    Args:
        budget: what is kept in the end, such as ``{"macs": 0.3}``: ``params``, ``macs``, ``channels``,
            ``memory``, ``latency`` as fractions of the dense network, in (0, 1], or as amounts; see `Budget`.
            Several together must all hold. Times are foretold from layers that are measured where the module
            is, with one image on one thread of a CPU, before training and after each cut. Beside them a floor
            on metrics of validation: ``max_drop``, such as ``{"val/dice": 0.01}`` below the dense
            network, or ``min``, such as ``{"val/dice": 0.85}``. Each cut is then judged by the last
            validation before the next; one that breaks the promise is taken back and tried again with half
            the step, and pruning ends at the smallest network that keeps it, at the budget at the latest.
            Cuts may then go on, with the same interval, beyond the last one planned.
        criterion: a name (``taylor``, ``l1``, ``l2``, ``random``), a `Criterion`, or a `Scoring`, which adds
            scores from a pass of their own and a penalty on BatchNorm. ``taylor`` costs nothing and follows
            the loss.
        schedule: how much goes at which cut: ``cubic`` takes most at first, ``linear`` the same each time,
            ``exponential`` the same fraction of what is left, ``one_shot`` all at the first; or a `Schedule`,
            which adds cuts by optimizer step and recovery.
        start_epoch: the first epoch, counted from 0, at whose start channels leave.
        every_n_epochs: epochs from one cut to the next.
        end_epoch: no cut is later; by default there is one cut. At least one epoch of training must remain
            after the last.
        selection: scope, rounding, floors and protected layers.
        module: the name of the part that is pruned, such as ``"student"``; several parts have a callback
            each. By default the whole module, or where it has no `forward` of its own its only network.
        example_inputs: what the pruned network's forward takes. By default the module's
            `example_input_array`, else noise of the shape of an image of the first training batch, else noise
            like the first call of the network in a training step.

    Raises:
        PruningError: a name does not exist or a number is out of range; in `setup`, an epoch is beyond the
            training, the strategy is not supported, or another callback prunes the same; before the first
            step of training, the budget cannot be reached, a cut has been missed, a name of a layer or part
            is unknown, or it is not known what the network is called with.

    Example:
        >>> pruning = IterativePruning(budget={"macs": 0.3}, start_epoch=5, every_n_epochs=2, end_epoch=25)
        >>> trainer = L.Trainer(callbacks=[pruning], max_epochs=40, logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        *,
        budget: dict[str, float | dict[str, float]],
        # Names are plain strings: of a Literal inside a list of callbacks the command line says a page where
        # our own error says a line.
        criterion: str | Criterion | Scoring = "taylor",
        schedule: str | Schedule = "cubic",
        start_epoch: int = 1,
        every_n_epochs: int = 1,
        end_epoch: int | None = None,
        selection: Selection | None = None,
        module: str = "",
        example_inputs: Tensor | tuple[Any, ...] | dict[str, Any] | None = None,
    ) -> None:
        super().__init__(module)
        kept, floor = split(budget)
        self.budget = Budget.of(kept)
        self.scores = TrainingScores(Scoring.of(criterion))
        self.schedule = Schedule.of(schedule)
        self.timing = Timing.of(self.schedule, start_epoch, every_n_epochs, end_epoch)
        self.guard = None if floor is None else Guard(floor, len(self.timing.times))
        self.recovering = Recovering(self.schedule.recovery)
        if selection is not None and not isinstance(selection, Selection):
            raise PruningError(f"expected selection to be a Selection(...), but got {selection!r}")
        self.selection = selection or Selection()
        self.example = Example(example_inputs)
        checks.check_start(self.scores.criterion, self.timing)
        self._loads: RemovableHandle | None = None
        self.forget()

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs at whose start cuts are planned; none where they are by optimizer step."""
        return self.timing.times if self.timing.unit == "epoch" else ()

    @property
    def inputs(self) -> Inputs:
        """What the module is called with, known once training has begun.

        Raises:
            PruningError: it is not known yet.
        """
        if self.example.inputs is None:
            raise PruningError(f"what the module is called with is not known before training; {REMEDY}")
        return self.example.inputs

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuses what cannot work, before anything is trained; checkpoints carry the structure from here."""
        carry_structure_(pl_module)
        self._loads = averages.follow_loads(pl_module, instead_of=self._loads)
        if stage != "fit":
            return
        checks.check_strategy(trainer)
        checks.check_apart(self.module, [other.module for other in self.others(trainer)], self.guard)
        checks.check_epochs(trainer, self.epochs)
        write_whole_(trainer)
        self._graph = None
        if not self.done:
            self.forget()

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Tells a training that goes on from a new one; traces the network where its input is known."""
        network = network_of(pl_module, self.module)
        anew = not self._size and trainer.ckpt_path is None  # a dense network, and no training to go on with
        if self.done and (anew or self._params != count(network)):
            self.forget()  # what was done was done to another network
        if self.done and trainer.is_global_zero:
            bring_dense(trainer)
        self.take(network)
        self.example.read(pl_module, network)
        checks.check_times(trainer, self.timing)
        now = self.timing.now(trainer)
        checks.check_not_missed(now, self.missed(trainer), self.timing.unit)
        if self.due(now) is not None:
            checks.check_observed(now, self.scores, self.timing.unit)
        if self.guard is not None:
            self.guard.start(trainer)
        self.recovering.start_(trainer, network)
        self.scores.start(trainer, network)
        if self.example.inputs is not None:
            self.prepare(trainer, pl_module)

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Makes the cut of this epoch."""
        if self._graph is not None and self.due(self.timing.now(trainer)) is not None:
            self.prune_now_(trainer, pl_module)

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Traces the network from its first batch; makes cuts by step, and those that waited for a batch."""
        # Only training's own batches are looked at: another pass over the data would use up workers'
        # prefetched batches, streams and random generators.
        if self._graph is None:
            self.meet(trainer, pl_module, batch)
        if batch_idx == 0:  # for a run that goes on from after the last batch: it gets no end of that epoch
            self.recovering.recalibrate_(trainer, self.network)
        # Due here: what goes by step, what waited for a batch, and an epoch that goes on in its middle from a
        # checkpoint.
        if between_steps(trainer, batch_idx) or self.timing.unit == "epoch":
            self.on_train_epoch_start(trainer, pl_module)
        compensated = self._near(trainer, batch_idx, self.recovering.options.compensate)
        self.recovering.before_batch(trainer, self.network, batch_idx, near=compensated)
        self.scores.begin(record=self._near(trainer, batch_idx, self.scores.scoring.batches))

    def _near(self, trainer: L.Trainer, batch_idx: int, batches: int) -> bool:
        """Whether a batch that begins is one of the last `batches` before a cut."""
        return batches > 0 and not self.finished and self.timing.near(trainer, batch_idx, batches)

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the batch where scores or recovery want it."""
        if self._graph is None:
            self.hear(trainer, pl_module)
        fallback = call_with_image(batch) if self.example.of_image else None
        self.recovering.after_batch(batch, fallback)
        self.scores.end(batch, fallback)

    @override
    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer
    ) -> None:
        """Reads the gradients for scores, then adds those of the penalty."""
        if self.finished:
            return
        if self._graph is None and (self.example.heard or len(trainer.optimizers) == 1):
            self.hear(trainer, pl_module)
        if self._graph is None or not trains(optimizer, self._graph, self.network):
            return
        scale = penalty.gradient_scale(trainer, optimizer)
        self.scores.observe(self._graph, self.network, unread=self._whole, scale=scale)
        if self._scales:
            penalty.add_penalty_(optimizer, self._scales, self.scores.scoring.bn_penalty * scale)

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Estimates statistics anew that the last cut left stale."""
        if fits(trainer):
            self.recovering.recalibrate_(trainer, self.network)

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Notes the metrics for the verdict, and keeps the best checkpoint of this size."""
        if self._graph is None or not fits(trainer):
            return
        if self.guard is not None:
            self.guard.note(trainer)
        if self._size:
            part = self.part(trainer)
            self.points = pareto.keep_best(self.points, trainer, self._size, self.amounts(), part=part)
        else:
            self._dense_metric = pareto.monitored(trainer)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Estimates stale statistics anew."""
        self.recovering.recalibrate_(trainer, self.network)  # where the epoch had no validation

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The last verdict; says where the budget was not reached."""
        self.recovering.stop()
        self.scores.stop()
        if self.judged_(trainer, pl_module, last=True) == "broken":
            averages.transfer_(trainer)
            save_last_again(trainer)
        if self.guard is None and not self.finished and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_warn(
                f"training ended at epoch {trainer.current_epoch} after {self._cuts} of "
                f"{len(self.timing.times)} cuts: the budget is not reached. Early stopping or a limit "
                "ended it"
            )

    @override
    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Watches no more: Lightning calls no `teardown` then."""
        self.teardown(trainer, pl_module, "fit")

    @override
    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Watches no more."""
        if self._loads is not None:
            self._loads.remove()
        self.recovering.stop()
        self.scores.stop()
        self.example.stop()
