"""What `Recovery` asks for, carried through a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from seg_pruning.callbacks import averages
from seg_pruning.callbacks.options import Recovery
from seg_pruning.callbacks.ranks import gathered
from seg_pruning.callbacks.recorder import Record, Recorder
from seg_pruning.callbacks.rewarming import ramp, scale_rates_
from seg_pruning.callbacks.rewinding import Early, cut_early, early_state, rewind_
from seg_pruning.callbacks.timing import near_validation
from seg_pruning.pruning.compensation import compensate_, compensation
from seg_pruning.pruning.recalibration import recalibrate_, training_norms
from seg_pruning.surgery.cut import Cut
from seg_pruning.surgery.inputs import Inputs


class Recovering:
    """Recovery of one training: what was noted early, when the last cut was, and what it left stale.

    Args:
        options: what is wanted.
    """

    def __init__(self, options: Recovery) -> None:
        self.options = options
        self.recorder = Recorder(options.recalibrate)
        self.before = Recorder(options.compensate)
        self._handles: tuple[RemovableHandle, ...] = ()
        self.forget()

    def forget(self) -> None:
        """Makes it as new."""
        self.early: Early | None = None
        self.since: int | None = None
        self.stale = False
        self._norms: frozenset[str] = frozenset()
        self.recorder.clear()
        self.before.clear()

    def start_(self, trainer: L.Trainer, network: nn.Module) -> None:
        """Begins to watch a training."""
        self.stop()
        if self.options.recalibrate:
            self.recorder.attach(network, trainer)
        if self.options.compensate:
            self.before.attach(network, trainer)
        if self.options.rewarm:
            self._handles = scale_rates_(trainer.optimizers, lambda: self._factor(trainer.global_step))

    def stop(self) -> None:
        """Watches no more."""
        self.recorder.detach()
        self.before.detach()
        for handle in self._handles:
            handle.remove()
        self._handles = ()

    def before_batch(self, trainer: L.Trainer, network: nn.Module, batch_idx: int, *, near: bool) -> None:
        """A batch of training begins, one of the last before a cut if it is `near`."""
        if trainer.global_step >= self.options.rewind_to:
            self.note_early(trainer, network)
        size = self.options.recalibrate
        few = len(self.recorder.kept) < size  # the first ones too: training may be told to stop at any batch
        recorded = self.stale and (few or near_validation(trainer, batch_idx, size))
        self.recorder.begin(record=recorded)
        self.before.begin(record=near)
        if recorded:
            self._norms = training_norms(network)

    def after_batch(self, batch: object, fallback: Inputs | None) -> None:
        """A batch of training has ended; `fallback` is what the network could be called with for it."""
        self.recorder.end(batch, fallback)
        self.before.end(batch, fallback)

    def note_early(self, trainer: L.Trainer, network: nn.Module) -> None:
        """Notes the early state, unless one was noted before or none is wanted."""
        if self.options.rewind != "none" and self.early is None:
            self.early = early_state(trainer, network, self.options.rewind)

    def before_cut(
        self, trainer: L.Trainer, network: nn.Module, cut: Cut, records: Sequence[Record]
    ) -> dict[str, Tensor]:
        """What will make up for a cut that is about to be made, by batches of `before`; for `after_cut_`."""
        calls = [inputs for inputs, _ in records]
        with trainer.precision_plugin.forward_context():
            return compensation(network, cut, calls) if calls else {}

    def after_cut_(
        self, trainer: L.Trainer, network: nn.Module, cut: Cut, changes: Mapping[str, Tensor]
    ) -> None:
        """Starts the recovery from a cut that was just made."""
        compensate_(network, cut, changes)
        with averages.shown(trainer) as others:
            compensate_(network, cut, changes if others else {})
        self.before.clear()
        if self.early is not None:
            self.early = cut_early(self.early, cut)
            rewind_(trainer, network, self.early)
            if self.early["tensors"]:
                averages.restart_(trainer)
        self.since = trainer.global_step
        self.stale = self.options.recalibrate > 0
        self.recorder.clear()

    def recalibrate_(self, trainer: L.Trainer, network: nn.Module) -> None:
        """Estimates stale statistics anew, if batches were seen since the cut."""
        records = gathered(trainer, self.recorder.kept) if self.stale else []
        if records:
            self._recalibrate_(trainer, network, records)
            with averages.shown(trainer) as others:
                if others:
                    self._recalibrate_(trainer, network, records)
            self.stale = False
            self.recorder.clear()

    def _recalibrate_(self, trainer: L.Trainer, network: nn.Module, records: Sequence[Record]) -> None:
        calls = [inputs for inputs, _ in records]
        recalibrate_(network, self._norms, calls, context=trainer.precision_plugin.forward_context)

    def state_dict(self) -> dict[str, Any]:
        """All of it in plain types and tensors."""
        return {
            "early": self.early,
            "since": self.since,
            "stale": self.stale,
            "norms": sorted(self._norms),
            "recorded": self.recorder.state_dict(),
            "before": self.before.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self.early, self.since, self.stale = state["early"], state["since"], state["stale"]
        self._norms = frozenset(state.get("norms", ()))  # older files have none
        self.recorder.load_state_dict(state["recorded"])
        self.before.load_state_dict(state["before"])

    def _factor(self, step: int) -> float:
        return 1.0 if self.since is None else ramp(step, self.since, self.options.rewarm)
