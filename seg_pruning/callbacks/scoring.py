"""Scores while a network trains: from the gradients of its steps, or in a pass over batches just seen."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import lightning as L
from torch import nn

from seg_pruning.callbacks.options import Scoring
from seg_pruning.callbacks.recorder import Record, Recorder
from seg_pruning.pruning import criteria
from seg_pruning.pruning.criteria import Criterion
from seg_pruning.pruning.score import RunningScores, Scores, parameters_of, score
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.graph import ChannelGraph
from seg_pruning.surgery.inputs import Inputs


class TrainingScores:
    """The scores of one training since its last cut.

    Args:
        scoring: by what, and from where.
    """

    def __init__(self, scoring: Scoring) -> None:
        self.scoring = scoring
        self.running = RunningScores(criteria.get(scoring.criterion))
        self.by_pass = needs_pass(scoring, self.criterion)
        self._seen = Recorder(scoring.batches)

    @property
    def criterion(self) -> Criterion:
        """The criterion."""
        return self.running.criterion

    @property
    def ready(self) -> bool:
        """Whether scores could be computed now."""
        if self.by_pass:
            return bool(self._seen.kept)
        return self.criterion.needs == "weights" or self.running.count > 0

    @property
    def of_training(self) -> bool:
        """Whether scores come from the gradients of training itself."""
        return self.criterion.needs == "gradients" and not self.by_pass

    def start(self, trainer: L.Trainer, network: nn.Module) -> None:
        """Begins to watch a training."""
        if self.by_pass:
            self._seen.attach(network, trainer)

    def stop(self) -> None:
        """Watches no more."""
        self._seen.detach()

    def begin(self, *, record: bool) -> None:
        """A batch of training begins, one of the last before a cut if it is to be recorded."""
        self._seen.begin(record=self.by_pass and record)

    def end(self, batch: object, fallback: Inputs | None) -> None:
        """It has ended; `fallback` is what the module could be called with for it."""
        self._seen.end(batch, fallback)

    def observe(
        self, graph: ChannelGraph, network: nn.Module, *, unread: Collection[str], scale: float = 1.0
    ) -> None:
        """Reads the gradients of a training step, multiplied by `scale`, where scores come from them."""
        if not self.of_training:
            return
        weights, gradients = parameters_of(network), None
        if scale != 1.0:  # it changes while a network trains, and steps are to count alike
            gradients = {name: w.grad / scale for name, w in weights.items() if w.grad is not None}
        self.running.update(graph, weights, gradients, unread=unread)

    @property
    def seen(self) -> list[Record]:
        """The batches of a pass of its own."""
        return list(self._seen.kept)

    def compute(
        self, graph: ChannelGraph, network: nn.Module, seen: Sequence[Record], *, unread: Collection[str]
    ) -> Scores:
        """The scores, as in `score`, over the batches of `seen` where they are of a pass of its own."""
        if self.by_pass:
            return pass_scores(self.scoring, self.criterion, graph, network, seen, unread=unread)
        if self.criterion.needs == "weights":
            self.running.reset()
            self.running.update(graph, parameters_of(network), {}, unread=unread)
        return self.running.compute(unread=unread)

    def blind(self, graph: ChannelGraph, network: nn.Module, *, unread: Collection[str]) -> frozenset[str]:
        """The groups of which no parameter had a gradient, or will have one in a pass: they have no score."""
        if self.criterion.needs != "gradients":
            return frozenset()
        if not self.by_pass:
            return frozenset(self.running.blind(unread=unread))
        return frozenset(untrained(graph, network, unread=unread))

    def reset(self) -> None:
        """Forgets what was seen; due after every cut."""
        self.running.reset()
        self._seen.clear()

    def state_dict(self) -> dict[str, Any]:
        """What was seen, in plain types and tensors."""
        return {"running": dict(self.running.state_dict()), "seen": self._seen.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self.running.load_state_dict(state["running"])
        self._seen.load_state_dict(state["seen"])


def untrained(graph: ChannelGraph, network: nn.Module, *, unread: Collection[str]) -> list[str]:
    """The groups, but for those of `unread`, of which every parameter is frozen."""
    trained = {name for name, weight in parameters_of(network).items() if weight.requires_grad}
    groups = (group for group in graph.prunable if group.name not in unread)
    return [g.name for g in groups if not any(member.tensor in trained for member in g.members)]


def needs_pass(scoring: Scoring, criterion: Criterion) -> bool:
    """Whether scores come from a pass of their own, not from the gradients of training.

    Raises:
        PruningError: they do, and there is no batch or no loss for it.
    """
    if criterion.needs == "weights" or (criterion.needs == "gradients" and not scoring.batches):
        return False
    name = type(criterion).__name__
    if not scoring.batches:
        raise PruningError(
            f"{name} as it is set needs a pass of its own, which the gradients of training do not give: say "
            f"over how many batches, such as Scoring({name}(...), batches=8)"
        )
    if criterion.needs_loss and scoring.loss is None:
        raise PruningError(
            f"{name} is to be computed in a pass of {scoring.batches} batches and needs "
            "a loss: give Scoring(loss=...), a function of the module's output and the batch, or batches=0 "
            "to read the gradients of training"
        )
    return True


def pass_scores(
    scoring: Scoring,
    criterion: Criterion,
    graph: ChannelGraph,
    network: nn.Module,
    seen: Sequence[Record],
    *,
    unread: Collection[str],
) -> Scores:
    """Scores over recorded batches, the network in eval mode; nothing of it changes.

    Raises:
        PruningError: there are no batches, or the loss cannot be differentiated.
    """
    if not seen:
        raise PruningError(
            f"{type(criterion).__name__} needs {scoring.batches} batches of training before a cut, but none "
            "was seen: start later, or go on from a checkpoint whose batches are plain tensors"
        )
    data: list[object] = list(seen) if criterion.needs_loss else [inputs for inputs, _ in seen]
    loss = scoring.loss if criterion.needs_loss else None
    return score(graph, network, criterion, data=data, loss=loss, unread=unread)
