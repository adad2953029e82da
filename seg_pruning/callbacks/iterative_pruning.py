"""Prune a network step by step while Lightning trains it."""

from dataclasses import asdict
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from seg_pruning.callbacks.carried import carry_structure_
from seg_pruning.callbacks.checks import (
    check_epochs,
    check_not_missed,
    check_observed,
    check_one_device,
    check_steps,
)
from seg_pruning.callbacks.dense import bring_dense, save_dense
from seg_pruning.callbacks.event import Event, announce
from seg_pruning.callbacks.example import REMEDY, example_like, example_of, image_shape
from seg_pruning.callbacks.monitors import reset_monitors_
from seg_pruning.pruning import criteria, schedules
from seg_pruning.pruning.budgets import Amounts, Budget, amounts
from seg_pruning.pruning.criteria import Criterion
from seg_pruning.pruning.protection import protected
from seg_pruning.pruning.score import RunningScores, Scores, parameters_of
from seg_pruning.pruning.selection import Selection, check_reachable, select
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.graph import ChannelGraph
from seg_pruning.surgery.inputs import ExampleInputs, Inputs
from seg_pruning.surgery.operation import operate_
from seg_pruning.surgery.trial import trace


class IterativePruning(L.Callback):
    """Removes channels of the module at the start of chosen epochs, until the budget holds.

    Each cut is certified, or rolled back with an error. Parameters stay the objects that optimizers know,
    and the state of optimizers is cut with them; nothing else of a project changes. Gradients for scores are
    read from normal training steps: there are no extra passes. At each cut checkpoints, early stopping and
    plateau schedulers forget the best that they saw, so that "best" is never a network denser than the
    present one.

    Args:
        budget: fractions of the dense network that are kept in the end, such as ``{"macs": 0.3}``:
            ``params``, ``macs``, ``channels``, each in (0, 1]; several together must all hold.
        criterion: a name (``taylor``, ``l1``, ``l2``, ``random``) or a `Criterion`.
        schedule: how much goes at which cut: ``cubic`` takes most at first, ``linear`` the same each time,
            ``exponential`` the same fraction of what is left, ``one_shot`` all at the first.
        start_epoch: the first epoch, counted from 0, at whose start channels leave.
        every_n_epochs: epochs from one cut to the next.
        end_epoch: no cut is later; by default there is one cut. At least one epoch of training must remain
            after the last.
        selection: scope, rounding, floors and protected layers.
        example_inputs: what the module's forward takes. By default its `example_input_array`, else noise of
            the shape of an image of the first training batch.

    Raises:
        PruningError: a name does not exist or a number is out of range; in `setup`, an epoch is beyond the
            training or the strategy is not supported; before the first step of training, the budget cannot
            be reached, a cut has been missed, or a protected name is unknown.

    Example:
        >>> pruning = IterativePruning(budget={"macs": 0.3}, start_epoch=5, every_n_epochs=2, end_epoch=25)
        >>> trainer = L.Trainer(callbacks=[pruning], max_epochs=40, logger=False, enable_checkpointing=False)
    """

    done: list[int]
    dense: Amounts | None
    widths: dict[str, int]
    _params: int | None
    _shape: tuple[int, ...] | None
    _inputs: Inputs | None
    _graph: ChannelGraph | None

    def __init__(
        self,
        *,
        budget: dict[str, float],
        # Names are plain strings: of a Literal inside a list of callbacks the command line says a page where
        # our own error says a line.
        criterion: str | Criterion = "taylor",
        schedule: str = "cubic",
        start_epoch: int = 1,
        every_n_epochs: int = 1,
        end_epoch: int | None = None,
        selection: Selection | None = None,
        example_inputs: Tensor | tuple[Any, ...] | dict[str, Any] | None = None,
    ) -> None:
        self.budget = Budget.of(budget)
        self.scores = RunningScores(criteria.get(criterion))
        self.schedule = schedules.get(schedule)
        self.epochs = schedules.events(start_epoch, every_n_epochs, end_epoch, None)
        self.selection = selection or Selection()
        self.example_inputs: ExampleInputs | None = example_inputs
        if self.scores.criterion.gradients and start_epoch == 0:
            raise PruningError(
                f"{type(self.scores.criterion).__name__} needs the gradients of at least one epoch, but "
                "start_epoch is 0; start at epoch 1 or later, or choose a criterion of weights such as 'l2'"
            )
        self._forget()

    def should_prune(self, epoch: int) -> bool:
        """Whether a cut belongs to the start of `epoch`, counted from 0; override it for your own times.

        However often it says so, an epoch has one cut at most, also where training goes on from a checkpoint.
        """
        return epoch in self.epochs

    def _due(self, epoch: int) -> bool:
        return epoch not in self.done and self.should_prune(epoch)

    @property
    def finished(self) -> bool:
        """Whether the last cut has been made."""
        return any(epoch >= self.epochs[-1] for epoch in self.done)

    @property
    def inputs(self) -> Inputs:
        """What the module is called with, known once training has begun.

        Raises:
            PruningError: it is not known yet.
        """
        if self._inputs is None:
            raise PruningError(f"what the module is called with is not known before training; {REMEDY}")
        return self._inputs

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        carry_structure_(pl_module)
        if stage != "fit":
            return
        check_one_device(trainer)
        check_epochs(trainer, self.epochs)
        self._graph = None
        if not self.done:
            self._forget()
        self._inputs = self._given(pl_module) or self._inputs

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.done and self._params != _count(pl_module):
            self._forget()  # what was done was done to another network
        if self.done:
            bring_dense(trainer)
        self._inputs = self._given(pl_module) or self._inputs
        check_steps(trainer, self.epochs)
        now = trainer.current_epoch
        check_not_missed(now, [epoch for epoch in self.epochs if epoch < now and self._due(epoch)])
        if self._due(now):
            check_observed(now, self.scores)
        if self._inputs is not None:
            self._prepare(pl_module)

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._graph is not None and self._due(trainer.current_epoch):
            self.prune_now_(trainer, pl_module)

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Only training's own batches are looked at: another pass over the data would use up workers'
        # prefetched batches, streams and random generators.
        if self._graph is None:
            self._shape = image_shape(batch)
            self._inputs = example_like(self._shape)
            self._prepare(pl_module)
        # Due here: what waited for a batch, and an epoch that goes on in its middle from a checkpoint.
        self.on_train_epoch_start(trainer, pl_module)

    @override
    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer
    ) -> None:
        if self.scores.criterion.gradients and not self.finished:
            assert self._graph is not None
            self.scores.update(self._graph, parameters_of(pl_module))

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.finished and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_warn(
                f"training ended at epoch {trainer.current_epoch} after {len(self.done)} of "
                f"{len(self.epochs)} cuts: the budget is not reached. Early stopping or a limit ended it"
            )

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "done": list(self.done),
            "dense": None if self.dense is None else asdict(self.dense),
            "widths": dict(self.widths),
            "params": self._params,
            "shape": None if self._shape is None else list(self._shape),
            "scores": dict(self.scores.state_dict()),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.done = list(state_dict["done"])
        self.dense = None if state_dict["dense"] is None else Amounts(**state_dict["dense"])
        self.scores.load_state_dict(state_dict["scores"])
        self.widths = dict(state_dict["widths"])
        self._params = state_dict["params"]
        self._shape = None if state_dict["shape"] is None else tuple(state_dict["shape"])
        if self._inputs is None and self._shape is not None:
            self._inputs = example_like(self._shape)

    def limit(self, epoch: int) -> Amounts:
        """What the network may cost after the cut at the start of `epoch`."""
        assert self.dense is not None
        progress = schedules.progress_at(epoch, self.epochs)
        kept = {
            name: schedules.target(fraction, progress, schedule=self.schedule)
            for name, fraction in self.budget.fractions.items()
        }
        return Budget(**kept).limit(self.dense)

    def prune_now_(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Makes the cut that is due in the present epoch."""
        assert self._graph is not None
        assert self.dense is not None
        inputs = self._inputs_for(pl_module)
        before = amounts(self._graph)
        limit = self.limit(trainer.current_epoch)
        plan = select(self._graph, self._scores(pl_module), limit, self.selection, dense=self.widths)
        error = 0.0
        if not self.done:
            save_dense(trainer)
        if plan.kept:
            optimizers = tuple(trainer.optimizers)
            error = operate_(pl_module, self._graph, plan, inputs, optimizers=optimizers).max_error
            torch.compiler.reset()  # code compiled for the old widths would only fill the cache
            self._graph = trace(pl_module, inputs)
            reset_monitors_(trainer)
        self.scores.reset()
        self.done.append(trainer.current_epoch)
        self._params = _count(pl_module)
        announce(
            trainer,
            Event(
                number=len(self.done),
                planned=len(self.epochs),
                dense=self.dense,
                before=before,
                graph=self._graph,
                max_error=error,
            ),
        )

    def _forget(self) -> None:
        """Makes the callback as new: nothing is known of any network or training."""
        self.done = []
        self.dense = None
        self.widths = {}
        self.scores.reset()
        self._params = self._shape = self._inputs = self._graph = None

    def _given(self, pl_module: L.LightningModule) -> Inputs | None:
        """What the user says that the module is called with."""
        return example_of(pl_module) if self.example_inputs is None else Inputs.of(self.example_inputs)

    def _inputs_for(self, pl_module: L.LightningModule) -> Inputs:
        """The inputs where the module is; noise also in its dtype."""
        dtype = pl_module.dtype if self._given(pl_module) is None else None
        assert not isinstance(dtype, str)
        return self.inputs.to(device=pl_module.device, dtype=dtype)

    def _prepare(self, pl_module: L.LightningModule) -> None:
        """Traces the network, and makes sure that the budget can be reached."""
        try:
            self._graph = trace(pl_module, self._inputs_for(pl_module))
        except PruningError as error:
            if self._given(pl_module) is None:
                raise PruningError(f"{error}. If it is not called with one image, {REMEDY}") from error
            raise
        if self.dense is None:
            self.dense = amounts(self._graph)
            self.widths = {group.name: group.size for group in self._graph.groups}
        limit = self.budget.limit(self.dense)
        check_reachable(self._graph, limit, self.selection, dense=self.widths)

    def _scores(self, pl_module: L.LightningModule) -> Scores:
        assert self._graph is not None
        if not self.scores.criterion.gradients:
            self.scores.reset()
            self.scores.update(self._graph, parameters_of(pl_module), {})
        return self.scores.compute(unread=protected(self._graph, self.selection.protect))


def _count(module: L.LightningModule) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
