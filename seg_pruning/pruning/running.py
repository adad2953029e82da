"""Scores averaged over observations, such as the optimizer steps since the last cut."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor, nn

from seg_pruning.pruning import criteria
from seg_pruning.pruning.criteria import Criterion
from seg_pruning.pruning.criteria.base import check_reads_weights, check_scored, listed
from seg_pruning.pruning.criteria.elementwise import Elementwise
from seg_pruning.pruning.reduction import Reduction, plan_reduction
from seg_pruning.surgery.errors import PruningError

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGraph, ChannelGroup

Scores = dict[str, Tensor]
"""Group name -> float32 of shape `(group.size,)`, in the order of the graph: low leaves first."""


class State(TypedDict):
    """`RunningScores` as plain types and tensors."""

    count: int
    skipped: int
    sums: dict[str, Tensor]
    seen: list[str]


class RunningScores:
    """Mean of a criterion's scores over observations, such as the optimizer steps since the last cut.

    Args:
        criterion: A name or a criterion, of weights: one that needs outputs of layers is for `score` alone.
    """

    def __init__(self, criterion: str | Criterion) -> None:
        self.criterion = criteria.get(criterion)
        self.reset()

    def reset(self) -> None:
        """Forgets all observations; due after every cut, which changes sizes."""
        self.count = 0
        self.skipped = 0
        self._sums: dict[str, Tensor] = {}
        self._seen: set[str] = set()
        self._planned: tuple[ChannelGraph, Collection[str], Reduction] | None = None

    @torch.no_grad()
    def update(
        self,
        graph: ChannelGraph,
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor] | None = None,
        *,
        unread: Collection[str] = (),
    ) -> None:
        """Adds one observation; one whose scores are not finite (an overflow) is skipped and counted.

        Args:
            graph: The groups.
            weights: Parameters by name, as `parameters_of` gives them.
            gradients: Gradients by name; without them the `.grad` of the parameters. A parameter that has
                none (a frozen one) counts as if its gradient were zero.
            unread: Names of groups that are left out, such as protected ones.

        Raises:
            PruningError: A group has another size than in earlier observations, or cannot be scored.
        """
        check_reads_weights(self.criterion)
        found = _grads(weights) if gradients is None else gradients
        groups = [group for group in graph.groups if group.prunable and group.name not in unread]
        self._check_sizes(groups)
        check_scored(self.criterion, groups)
        device = next(iter(weights.values())).device
        with torch.autocast(device.type, enabled=False):
            totals = self._totals(graph, groups, weights, found, unread)
            scores = self._scores(groups, weights, found) if totals is None else totals
            scores = {name: score.to(device) for name, score in scores.items()}
        if scores and not all_finite(scores.values()):
            self.skipped += 1
            return
        self.count += 1
        self._seen |= {group.name for group in groups if self._has_gradient(group, found)}
        for name, new in scores.items():
            old = self._sums.get(name)
            self._sums[name] = new if old is None else old.to(new.device) + new

    def compute(self, *, unread: Collection[str] = ()) -> Scores:
        """The mean of each score.

        Args:
            unread: Names of groups whose scores decide nothing, such as protected ones: these may be frozen.

        Raises:
            PruningError: Nothing was observed, or no parameter of another group ever had a gradient.
        """
        check_observed(self.count, self.skipped)
        if blind := self.blind(unread=unread):
            raise PruningError(
                f"no parameter of {listed(blind)} ever had a gradient: unfreeze it, protect it, or choose "
                "one of the criteria of weights, such as 'l2'"
            )
        return {name: total / self.count for name, total in self._sums.items()}

    def blind(self, *, unread: Collection[str] = ()) -> list[str]:
        """Names of the groups of which no parameter ever had a gradient, where scores come from gradients."""
        if not self.criterion.gradients:
            return []
        return [name for name in self._sums if name not in self._seen and name not in unread]

    def state_dict(self) -> State:
        """A copy of what was observed, on the CPU, for `torch.load(..., weights_only=True)`."""
        sums = {name: total.detach().cpu().clone() for name, total in self._sums.items()}
        return {"count": self.count, "skipped": self.skipped, "sums": sums, "seen": sorted(self._seen)}

    def load_state_dict(self, state: State) -> None:
        """Goes on from what `state_dict` gave."""
        self.count = state["count"]
        self.skipped = state["skipped"]
        self._sums = {name: total.clone() for name, total in state["sums"].items()}
        self._seen = set(state["seen"])

    def _scores(
        self, groups: Sequence[ChannelGroup], weights: Mapping[str, Tensor], found: Mapping[str, Tensor]
    ) -> Scores:
        """One call for each group."""
        return {group.name: self.criterion(group, weights, found) for group in groups}

    def _totals(
        self,
        graph: ChannelGraph,
        groups: Sequence[ChannelGroup],
        weights: Mapping[str, Tensor],
        found: Mapping[str, Tensor],
        unread: Collection[str],
    ) -> Scores | None:
        """The same for all groups at once, of criteria that are sums over elements."""
        criterion = self.criterion
        if not isinstance(criterion, Elementwise) or not criterion.is_sum:
            return None
        sizes = {name: weight.shape for name, weight in weights.items()}
        plan = self._plan(graph, groups, criterion, sizes, next(iter(weights.values())).device, unread)
        totals = plan.totals(lambda name: criterion.value(name, weights, found), sizes)
        return {name: criterion.finish(totals[a:b]).float() for name, (a, b) in plan.spans.items()}

    def _plan(
        self,
        graph: ChannelGraph,
        groups: Sequence[ChannelGroup],
        criterion: Elementwise,
        sizes: Mapping[str, torch.Size],
        device: torch.device,
        unread: Collection[str],
    ) -> Reduction:
        known = self._planned
        if known and known[0] is graph and known[1] == unread and known[2].source.device == device:
            return known[2]
        plan = plan_reduction(groups, criterion, sizes, device)
        self._planned = (graph, unread, plan)
        return plan

    def _has_gradient(self, group: ChannelGroup, gradients: Mapping[str, Tensor]) -> bool:
        return any(member.tensor in gradients for member in self.criterion.counted(group))

    def _check_sizes(self, groups: list[ChannelGroup]) -> None:
        """Sums of channels from before a cut must not meet those from after it."""
        if not self._sums:
            return
        before = {name: len(total) for name, total in self._sums.items()}
        now = {group.name: group.size for group in groups}
        changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if changed:
            shown = ", ".join(f"{name} ({before.get(name)} -> {now.get(name)})" for name in changed[:10])
            raise PruningError(
                f"channels changed since the last observation: {shown}. Call reset() after a cut"
            )


def parameters_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by name: a shared one by each of its names.

    Example:
        >>> list(parameters_of(nn.Linear(2, 3)))
        ['weight', 'bias']
    """
    return dict(model.named_parameters(remove_duplicate=False))


def check_observed(count: int, skipped: int) -> None:
    """Raises where no scores can be given."""
    if not count:
        raise PruningError(
            f"no scores: nothing was observed ({skipped} skipped because scores were not finite). "
            "Observe at least one batch, and look for a loss that is not finite where some were skipped"
        )


def all_finite(scores: Iterable[Tensor]) -> bool:
    """One look at all scores: one wait for the device."""
    return bool(torch.cat([score.reshape(-1) for score in scores]).isfinite().all())


def _grads(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradients that the parameters hold."""
    return {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
