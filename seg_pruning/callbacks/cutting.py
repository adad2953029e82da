"""One cut after the other: what has happened in a training, and what happens when a cut is due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import lightning as L
import torch
from typing_extensions import override

from seg_pruning.callbacks import averages, pareto, ranks, thawing
from seg_pruning.callbacks.dense import DenseListener, save_dense
from seg_pruning.callbacks.event import Event, announce, withdraw
from seg_pruning.callbacks.guard import Guard, Verdict
from seg_pruning.callbacks.limits import limit_at
from seg_pruning.callbacks.monitors import reset_monitors_
from seg_pruning.callbacks.options import Schedule
from seg_pruning.callbacks.part import count
from seg_pruning.callbacks.recorder import Record
from seg_pruning.callbacks.recovering import Recovering
from seg_pruning.callbacks.surveying import Surveying
from seg_pruning.callbacks.timing import Timing
from seg_pruning.pruning import schedules
from seg_pruning.pruning.budgets import Amounts
from seg_pruning.pruning.selection import select
from seg_pruning.surgery.note import structure_of
from seg_pruning.surgery.operation import operate_
from seg_pruning.surgery.plan import Plan


class Cutting(Surveying):
    """The cuts of one training; `IterativePruning` says when.

    Attributes:
        done: times whose cut was made, or judged not to be.
        points: the best checkpoint of each size, by number of cuts.
    """

    schedule: Schedule
    timing: Timing
    guard: Guard | None
    recovering: Recovering

    done: list[int]
    points: dict[int, pareto.Point]
    _cuts: int
    _size: int
    _params: int | None
    _dense_metric: float | None

    def should_prune(self, epoch: int) -> bool:
        """Whether a cut belongs to the start of `epoch`, counted from 0; override it for your own times.

        However often it says so, an epoch has one cut at most, also where training goes on from a checkpoint.
        It is not asked where cuts are by optimizer step. Where several ranks train, it has to say the same on
        each.
        """
        return self.timing.due(epoch, [], on=self.goes_on) is not None

    def due(self, now: int) -> int | None:
        """The time whose cut is to be made now."""
        if self.timing.unit == "step":
            return self.timing.due(now, self.done, on=self.goes_on)
        return now if now not in self.done and self.should_prune(now) else None

    @property
    def finished(self) -> bool:
        """Whether the last cut has been made."""
        if self.guard is not None:
            return self.guard.over
        return any(time >= self.timing.last for time in self.done)

    @property
    def goes_on(self) -> bool:
        """Whether cuts may go on beyond the last one planned."""
        return self.guard is not None and not self.guard.over

    @override
    def state_dict(self) -> dict[str, Any]:
        """All that a training needs to go on, in plain types and tensors."""
        return {
            "done": list(self.done),
            "cuts": self._cuts,
            "dense": None if self.dense is None else asdict(self.dense),
            "widths": dict(self.widths),
            "example": self.example.state_dict(),
            "guard": None if self.guard is None else self.guard.state_dict(),
            "points": [asdict(point) for point in self.points.values()],
            "dense_metric": self._dense_metric,
            **self._own_state(),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self.done = list(state_dict["done"])
        self._cuts = state_dict["cuts"]
        self.dense = None if state_dict["dense"] is None else Amounts(**state_dict["dense"])
        self.widths = dict(state_dict["widths"])
        self.example.load_state_dict(state_dict.get("example"))  # files of older versions have none
        if self.guard is not None and state_dict["guard"] is not None:
            self.guard.load_state_dict(state_dict["guard"])
        self.points = {point["size"]: pareto.Point(**point) for point in state_dict["points"]}
        self._dense_metric = state_dict.get("dense_metric")  # nor this
        self._load_own_state(state_dict)

    def _own_state(self) -> dict[str, Any]:
        """The part of the state that goes back with the network where a cut is taken back."""
        return {
            "size": self._size,
            "params": self._params,
            "scores": self.scores.state_dict(),
            "recovering": self.recovering.state_dict(),
        }

    def _load_own_state(self, state: dict[str, Any]) -> None:
        self._size, self._params = state["size"], state["params"]
        self.scores.load_state_dict(state["scores"])
        self.recovering.load_state_dict(state["recovering"])

    def limit(self, time: int) -> Amounts:
        """What the network may cost after the cut at `time`, an epoch or an optimizer step."""
        return self._limit(schedules.progress_at(time, self.timing.times))

    def _limit(self, progress: float) -> Amounts:
        assert self.dense is not None
        return limit_at(progress, self.dense, self.budget.limit(self.dense), self.schedule.shape)

    def prune_now_(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Makes the cut that is due now, after the verdict on the one before."""
        time = self.due(self.timing.now(trainer))
        assert time is not None
        self.done.append(time)
        self._params = count(self.network)  # also where nothing is cut, or what was cut is taken back
        cuts = self._cuts
        try:
            limit = self._next_limit_(trainer, pl_module, time)
            if limit is not None:
                self._cut_(trainer, pl_module, limit)
        except BaseException:
            if self._cuts == cuts:
                self._settle(time)
            raise

    def _settle(self, time: int) -> None:
        """Says of a cut that failed whether it was made, for a checkpoint that is written on the way out."""
        if count(self.network) == self._params:
            self.done.remove(time)
        else:
            self._book()

    def _book(self) -> None:
        """Notes that a cut was made."""
        self.scores.reset()
        self._cuts += 1
        self._size, self._params = self._cuts, count(self.network)

    def _next_limit_(self, trainer: L.Trainer, module: L.LightningModule, time: int) -> Amounts | None:
        """What the network may cost after a cut at `time`; None where there is to be none."""
        assert self.dense is not None
        self.recovering.note_early(trainer, self.network)
        if self.guard is None:
            return self.limit(time)
        self.guard.begin(self.dense)
        if self.judged_(trainer, module) == "waiting" or self.guard.over:
            return None
        assert self.guard.search is not None
        planned = self._limit(min(1.0, (self.guard.search.planned + 1) / self.guard.cuts))
        return self.guard.before_cut(trainer, module, planned, self._own_state())

    def judged_(self, trainer: L.Trainer, module: L.LightningModule, *, last: bool = False) -> Verdict:
        """Carries out the verdict on the last cut."""
        if self.guard is None:
            return "nothing"
        verdict, own = self.guard.conclude_(trainer, module, last=last)
        if verdict == "broken":
            taken_back = self._cuts
            self._load_own_state(dict(own))
            self.look(module)
            self._spread_(trainer, module)
            withdraw(trainer, taken_back, self.amounts(), part=self.part(trainer))
        return verdict

    def _cut_(self, trainer: L.Trainer, module: L.LightningModule, limit: Amounts) -> None:
        assert self.dense is not None
        before = self.amounts()
        seen = ranks.gathered(trainer, self.scores.seen)
        plan = ranks.decided(trainer, lambda: self._plan(module, seen, limit))
        if not self._cuts:
            self._leave_dense(trainer, module)
        error = self._operate_(trainer, module, plan) if plan.kept else 0.0
        self._book()
        assert self._graph is not None
        event = Event(
            part=self.part(trainer),
            number=self._cuts,
            planned=len(self.timing.times),
            dense=self.dense,
            before=before,
            after=self.amounts(),
            budget=self.budget.limit(self.dense),
            widths={group.name: group.size for group in self._graph.prunable},
            max_error=error,
        )
        announce(trainer, event)

    def _plan(self, module: L.LightningModule, seen: Sequence[Record], limit: Amounts) -> Plan:
        """What stays within a limit."""
        assert self._graph is not None
        assert self.dense is not None
        options, waiting = self.options(module), frozenset[str]()
        if limit != self.budget.limit(self.dense) and thawing.thaws(module.trainer):
            waiting = self.scores.blind(self._graph, self.network, unread=self._whole)
            limit, options = thawing.spare(
                self._graph, options, limit, waiting, dense=self.widths, latency=self._latency
            )
        scores = self.scores.compute(self._graph, self.network, seen, unread=self._whole | waiting)
        return select(self._graph, scores, limit, options, dense=self.widths, latency=self._latency)

    def _operate_(self, trainer: L.Trainer, module: L.LightningModule, plan: Plan) -> float:
        """Cuts, on every rank, and starts the recovery; gives the error of the certificate."""
        assert self._graph is not None
        records = ranks.gathered(trainer, self.recovering.before.kept)
        inputs = self.example.on(module, self.network)
        with ranks.together(trainer):
            cut = self._graph.cut(plan)
            changes = self.recovering.before_cut(trainer, self.network, cut, records)
            with averages.following_(trainer, self.network, cut):
                found = operate_(
                    self.network, self._graph, plan, inputs, optimizers=tuple(trainer.optimizers)
                )
            torch.compiler.reset()  # code compiled for the old widths would only fill the cache
            self.look(module)
        reset_monitors_(trainer)
        self.recovering.after_cut_(trainer, self.network, found.cut, changes)
        self._spread_(trainer, module)
        return found.max_error

    def _spread_(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Makes sure that all ranks train the same network, after its widths have changed."""
        structure = structure_of(self.network)
        ranks.check_same(trainer, repr(structure and structure.to_dict()), what="channels")
        ranks.wrap_again_(trainer, module)

    def _leave_dense(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Leaves the dense network, just before the first cut, to all that want to have it."""
        if any(isinstance(other, Cutting) and other._cuts for other in self.others(trainer)):
            return  # it was left before, and is dense no more
        assert self.dense is not None
        if (path := save_dense(trainer)) is not None:
            metric = pareto.monitored(trainer)
            metric = self._dense_metric if metric is None else metric
            part = self.part(trainer)
            self.points = pareto.with_dense(self.points, trainer, self.dense, metric, path, part=part)
        for callback in trainer.callbacks:  # type: ignore[attr-defined] # Lightning does not type it
            if isinstance(callback, DenseListener):
                callback.before_first_cut(module)

    def forget(self) -> None:
        """Makes the callback as new: nothing is known of any network or training."""
        self.done = []
        self.forget_network()
        self.points = {}
        self._cuts = self._size = 0
        self._params = self._dense_metric = None
        self.scores.reset()
        self.recovering.forget()
        if self.guard is not None:
            self.guard.forget()

    def missed(self, trainer: L.Trainer) -> list[int]:
        """Times of cuts that should have been made before."""
        late = [] if self.finished else self.timing.missed(trainer, self.done)
        return [time for time in late if self.due(time) is not None]
