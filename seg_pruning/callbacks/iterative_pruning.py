"""Prune a network step by step while Lightning trains it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from seg_pruning import tracking
from seg_pruning.callbacks.carried import carry_structure_
from seg_pruning.callbacks.example import example_from_data, example_of
from seg_pruning.callbacks.monitors import reset_monitors_
from seg_pruning.pruning import criteria, schedules
from seg_pruning.pruning.budgets import Amounts, Budget, amounts
from seg_pruning.pruning.criteria import Criterion
from seg_pruning.pruning.score import RunningScores, Scores, parameters_of
from seg_pruning.pruning.selection import Selection, select
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.graph import ChannelGraph
from seg_pruning.surgery.inputs import ExampleInputs, Inputs
from seg_pruning.surgery.operation import operate_
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace

DENSE_CHECKPOINT = "dense.ckpt"
"""The name of the checkpoint that is written just before the first cut."""


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
        example_inputs: what the module's forward takes. By default its `example_input_array`, else an image
            of the first batch.

    Raises:
        PruningError: a name does not exist or a number is out of range; in `setup`, an epoch is beyond the
            training or the strategy is not supported; before the first step of training, the budget cannot
            be reached.

    Example:
        >>> pruning = IterativePruning(budget={"macs": 0.3}, start_epoch=5, every_n_epochs=2, end_epoch=25)
        >>> trainer = L.Trainer(callbacks=[pruning], max_epochs=40, logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        *,
        budget: dict[str, float],
        criterion: Literal["taylor", "l1", "l2", "random"] | Criterion = "taylor",
        schedule: Literal["one_shot", "linear", "cubic", "exponential"] = "cubic",
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
                f"{type(self.scores.criterion).__name__} needs the gradients of at least one epoch, but start_epoch "
                "is 0; start at epoch 1 or later, or choose a criterion of weights such as 'l2'"
            )
        self.done: list[int] = []
        self.dense: Amounts | None = None
        self._inputs: Inputs | None = None
        self._graph: ChannelGraph | None = None

    # -- when
    # ----------------------------------------------------------------------------------------------------

    def should_prune(self, epoch: int) -> bool:
        """Whether channels leave at the start of `epoch`, counted from 0; override it for your own times."""
        return epoch in self.epochs and epoch not in self.done

    @property
    def finished(self) -> bool:
        """Whether all cuts have been made."""
        return len(self.done) == len(self.epochs)

    @property
    def inputs(self) -> Inputs:
        """What the module is called with, known once training has begun."""
        assert self._inputs is not None
        return self._inputs

    # -- hooks
    # ---------------------------------------------------------------------------------------------------

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        carry_structure_(pl_module)
        if stage == "fit":
            _refuse_unsupported(trainer)
            if not trainer.fast_dev_run:  # type: ignore[attr-defined]
                schedules.events(self.epochs[0], 1, self.epochs[-1], trainer.max_epochs)

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._graph = trace(pl_module, self._example(trainer, pl_module))
        if self.dense is None:
            self.dense = amounts(self._graph)
        even = {group.name: torch.arange(group.size, dtype=torch.float32) for group in self._graph.prunable}
        select(self._graph, even, self.budget.limit(self.dense), self.selection)

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.should_prune(trainer.current_epoch):
            self.prune_now_(trainer, pl_module)

    @override
    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer
    ) -> None:
        if self.scores.criterion.gradients and not self.finished:
            assert self._graph is not None
            self.scores.update(self._graph, parameters_of(pl_module))

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "done": list(self.done),
            "dense": None if self.dense is None else asdict(self.dense),
            "scores": dict(self.scores.state_dict()),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.done = list(state_dict["done"])
        self.dense = None if state_dict["dense"] is None else Amounts(**state_dict["dense"])
        self.scores.load_state_dict(state_dict["scores"])

    # -- an event
    # ------------------------------------------------------------------------------------------------

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
        inputs = self._example(trainer, pl_module)
        before = amounts(self._graph)
        plan = select(self._graph, self._scores(pl_module), self.limit(trainer.current_epoch), self.selection)
        error = 0.0
        if not self.done:
            _keep_dense(trainer)
        if plan.kept:
            optimizers = tuple(trainer.optimizers)
            error = operate_(pl_module, self._graph, plan, inputs, optimizers=optimizers).max_error
            torch.compiler.reset()  # code compiled for the old widths would only fill the cache
            self._graph = trace(pl_module, inputs)
            reset_monitors_(trainer)
        self.scores.reset()
        self.done.append(trainer.current_epoch)
        self._tell(trainer, before, plan, error)

    def _scores(self, pl_module: L.LightningModule) -> Scores:
        assert self._graph is not None
        if not self.scores.criterion.gradients:
            self.scores.reset()
            self.scores.update(self._graph, parameters_of(pl_module), {})
        return self.scores.compute()

    def _example(self, trainer: L.Trainer, pl_module: L.LightningModule) -> Inputs:
        if self._inputs is None:
            given = None if self.example_inputs is None else Inputs.of(self.example_inputs)
            self._inputs = given or example_of(pl_module) or example_from_data(trainer)
        return self._inputs.to(device=pl_module.device)

    def _tell(self, trainer: L.Trainer, before: Amounts, plan: Plan, error: float) -> None:
        assert self._graph is not None
        assert self.dense is not None
        now = amounts(self._graph)
        widths = {f"prune/channels/{group.name}": group.size for group in self._graph.prunable}
        values = {
            "prune/step": len(self.done),
            "prune/epoch": trainer.current_epoch,
            "prune/params": now.params,
            "prune/macs": now.macs,
            "prune/channels": now.channels,
            "prune/max_error": error,
            **widths,
        }
        tracking.log_event(trainer, values)
        removed = sum(plan.sizes[name] - len(kept) for name, kept in plan.kept.items())
        rank_zero_info(
            f"pruned at epoch {trainer.current_epoch} ({len(self.done)} of {len(self.epochs)}): "
            f"{removed} channels removed; "
            f"params {before.params:,} -> {now.params:,} ({now.params / self.dense.params:.1%} of dense), "
            f"MACs {before.macs:,} -> {now.macs:,} ({now.macs / self.dense.macs:.1%}); "
            f"certified to {error:.1e}"
        )


def _keep_dense(trainer: L.Trainer) -> None:
    """Writes the network before its first cut beside the other checkpoints, for comparison."""
    folder = getattr(trainer.checkpoint_callback, "dirpath", None)
    if folder is not None:
        trainer.save_checkpoint(Path(folder) / DENSE_CHECKPOINT, weights_only=True)


def _refuse_unsupported(trainer: L.Trainer) -> None:
    if trainer.world_size > 1:
        raise PruningError(
            f"IterativePruning works on one device; the trainer has {trainer.world_size} with "
            f"{type(trainer.strategy).__name__}. Set devices=1"
        )
