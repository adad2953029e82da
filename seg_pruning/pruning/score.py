"""Scores of all groups of a network: at once, or averaged while it trains."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor, nn

from seg_pruning.profiling.inference import device_of, evaluating, keeping_rng
from seg_pruning.pruning import criteria
from seg_pruning.pruning.criteria import Criterion
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import ExampleInputs, Inputs, map_tensors

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGraph, ChannelGroup

Scores = dict[str, Tensor]
"""Group name -> float32 of shape `(group.size,)`, in the order of the graph: low leaves first."""

Loss = Callable[..., Tensor]
"""(output, target) -> scalar."""


class State(TypedDict):
    """`RunningScores` as plain types and tensors."""

    count: int
    skipped: int
    sums: dict[str, Tensor]
    seen: list[str]


def score(
    graph: ChannelGraph,
    model: nn.Module,
    criterion: str | Criterion,
    *,
    data: Iterable[tuple[ExampleInputs, object]] | None = None,
    loss: Loss | None = None,
    unread: Collection[str] = (),
) -> Scores:
    """Scores the channels of all prunable groups.

    A criterion that needs gradients is computed on each batch of `data` and averaged over the batches,
    BatchNorm in eval mode. Modes, gradients, buffers and the random state of `model` are as before.

    Args:
        graph: The groups, traced from `model`.
        model: The network.
        criterion: A name or a criterion.
        data: Pairs of inputs (as forward takes them: a tensor, a tuple or a dict of keywords) and a target,
            on any device. Only criteria that need gradients read it.
        loss: Called with output and target, gives a scalar. Only criteria that need gradients call it.
        unread: Names of groups whose scores decide nothing, such as protected ones: these may be frozen.

    Returns:
        Scores by group name, in the order of the graph.

    Raises:
        PruningError: No such criterion; data or loss is missing or no pairs; no batch with finite gradients;
            a group of which no parameter has a gradient.
    """
    running = RunningScores(criterion)
    weights = parameters_of(model)
    if not running.criterion.gradients:
        running.update(graph, weights, {})
        return running.compute()
    if data is None or loss is None:
        raise PruningError(
            f"{type(running.criterion).__name__} needs gradients: give `data`, pairs of inputs and target, "
            "and `loss`, a function of output and target"
        )
    for gradients in _gradients(model, weights, data, loss):
        running.update(graph, weights, gradients)
    return running.compute(unread=unread)


class RunningScores:
    """Mean of a criterion's scores over observations, such as the optimizer steps since the last cut.

    Args:
        criterion: A name or a criterion.
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

    @torch.no_grad()
    def update(
        self,
        graph: ChannelGraph,
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Adds one observation; one whose scores are not finite (an overflow) is skipped and counted.

        Args:
            graph: The groups.
            weights: Parameters by name, as `parameters_of` gives them.
            gradients: Gradients by name; without them the `.grad` of the parameters. A parameter that has
                none (a frozen one) counts as if its gradient were zero.

        Raises:
            PruningError: A group has another size than in earlier observations.
        """
        found = _grads(weights) if gradients is None else gradients
        groups = [group for group in graph.groups if group.prunable]
        self._check_sizes(groups)
        device = next(iter(weights.values())).device
        scores = {group.name: self.criterion(group, weights, found).to(device) for group in groups}
        if scores and not _all_finite(scores.values()):
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
        if not self.count:
            raise PruningError(
                f"no scores: nothing was observed ({self.skipped} skipped because scores were not finite). "
                "Observe at least one batch, and look for a loss that is not finite where some were skipped"
            )
        blind = [name for name in self._sums if name not in self._seen and name not in unread]
        if self.criterion.gradients and blind:
            named = ", ".join(map(repr, blind[:10])) + (" and others" if len(blind) > 10 else "")
            raise PruningError(
                f"no parameter of {named} ever had a gradient: unfreeze it, protect it, or choose one "
                "of the criteria of weights, such as 'l2'"
            )
        return {name: total / self.count for name, total in self._sums.items()}

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
            listed = ", ".join(f"{name} ({before.get(name)} -> {now.get(name)})" for name in changed[:10])
            raise PruningError(
                f"channels changed since the last observation: {listed}. Call reset() after a cut"
            )


def parameters_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by name: a shared one by each of its names.

    Example:
        >>> list(parameters_of(nn.Linear(2, 3)))
        ['weight', 'bias']
    """
    return dict(model.named_parameters(remove_duplicate=False))


def _grads(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradients that the parameters hold."""
    return {name: weight.grad for name, weight in weights.items() if weight.grad is not None}


def _all_finite(scores: Iterable[Tensor]) -> bool:
    """One look at all scores: one wait for the device."""
    return bool(torch.cat([score.reshape(-1) for score in scores]).isfinite().all())


def _gradients(
    model: nn.Module, weights: Mapping[str, Tensor], data: Iterable[tuple[ExampleInputs, object]], loss: Loss
) -> Iterator[dict[str, Tensor]]:
    """Gradients of each batch, beside those that the parameters hold."""
    trained = {name: weight for name, weight in weights.items() if weight.requires_grad}
    if not trained:
        raise PruningError("no parameter of the network requires a gradient: unfreeze some, or choose 'l2'")
    for batch in data:
        inputs, target = _pair(batch)
        device = device_of(model, inputs)
        with evaluating(model), keeping_rng(device), torch.enable_grad():
            value = loss(inputs.to(device=device).call(model), _move(target, device))
            found = torch.autograd.grad(_scalar(value), list(trained.values()), allow_unused=True)
        yield {name: grad for name, grad in zip(trained, found, strict=True) if grad is not None}


def _move(target: object, device: torch.device) -> object:
    """The target where the network runs."""
    return map_tensors(target, lambda tensor: tensor.to(device))


def _pair(batch: object) -> tuple[Inputs, object]:
    """The inputs and the target of a batch."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise PruningError(
            f"expected each item of `data` to be a pair of inputs and target, not {type(batch).__name__}: "
            "pair them, for example ((b['image'], b['mask']) for b in loader)"
        )
    return Inputs.of(batch[0]), batch[1]


def _scalar(value: Tensor) -> Tensor:
    """`value`, if it is a loss that can be differentiated."""
    if value.numel() != 1 or not value.requires_grad:
        raise PruningError(
            f"expected `loss` to give one number that depends on the parameters, but got {value!r:.200}: "
            "average it over the batch, and do not detach it"
        )
    return value.reshape(())
