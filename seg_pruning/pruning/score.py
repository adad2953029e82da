"""Scores of all groups of a network."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from seg_pruning.profiling.inference import as_written, device_of, evaluating, keeping_rng
from seg_pruning.pruning import criteria
from seg_pruning.pruning.batches import Batch, read_batches
from seg_pruning.pruning.criteria import Criterion, OutputCriterion, OutputGradient
from seg_pruning.pruning.outputs import score_outputs
from seg_pruning.pruning.propagation import Loss, gradients_of, roots_of, scales
from seg_pruning.pruning.running import RunningScores, Scores, State, all_finite, parameters_of
from seg_pruning.surgery.errors import PruningError

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGraph

__all__ = ("Loss", "RunningScores", "Scores", "State", "parameters_of", "score")


def score(
    graph: ChannelGraph,
    model: nn.Module,
    criterion: str | Criterion,
    *,
    data: Iterable[object] | None = None,
    loss: Loss | None = None,
    unread: Collection[str] = (),
) -> Scores:
    """Scores the channels of all prunable groups.

    A criterion of weights with gradients is computed on each batch of `data` and averaged over the batches;
    one of outputs is averaged over samples. BatchNorm is in eval mode. Works under `torch.autocast`. Modes,
    gradients, buffers, hooks and the random state of `model` are as before.

    Args:
        graph: The groups, traced from `model`.
        model: The network.
        criterion: A name or a criterion.
        data: What forward takes (a tensor, a tuple or a dict of keywords), or pairs of that and a target, on
            any device. Pairs are a must where the criterion needs the gradient of the loss. Criteria of
            weights alone do not read it.
        loss: Called with output and target, gives a scalar. Only criteria that need its gradient call it.
        unread: Names of groups whose scores decide nothing, such as protected ones: these may be frozen, or
            such that the criterion has no score for them, and may be left out.

    Returns:
        Scores by group name, in the order of the graph.

    Raises:
        PruningError: No such criterion; data or loss is missing or no pairs; no batch with finite gradients;
            a group of which no parameter has a gradient, or that the criterion has no score for.
    """
    chosen = criteria.get(criterion)
    if chosen.needs == "weights":
        running = RunningScores(chosen)
        running.update(graph, parameters_of(model), {}, unread=unread)
        return running.compute()
    items = _given(chosen, data, loss)
    batches = read_batches(items, model, paired=chosen.needs_loss or loss is not None)
    if isinstance(chosen, OutputCriterion) and chosen.reads == "outputs":
        return score_outputs(graph, model, chosen, batches, loss=loss, unread=unread)
    running, weights = RunningScores(chosen), parameters_of(model)
    for gradients in _gradients(model, weights, _observations(batches, chosen), chosen.output_gradient, loss):
        running.update(graph, weights, gradients, unread=unread)
    return running.compute()


def _given(criterion: Criterion, data: Iterable[object] | None, loss: Loss | None) -> Iterable[object]:
    """The data, if what the criterion needs is there."""
    name = type(criterion).__name__
    if criterion.needs_loss:
        if data is None or loss is None:
            raise PruningError(
                f"{name} needs gradients: give `data`, pairs of inputs and target, "
                "and `loss`, a function of output and target"
            )
    elif data is None:
        raise PruningError(f"{name} needs a pass over samples: give `data`, what the network is called with")
    return data


def _observations(batches: Iterable[Batch], criterion: Criterion) -> Iterator[Batch]:
    """Batches, or single samples."""
    for batch in batches:
        yield from batch.samples if criterion.output_gradient.per_sample else (batch,)


def _gradients(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    batches: Iterable[Batch],
    how: OutputGradient,
    loss: Loss | None,
) -> Iterator[dict[str, Tensor]]:
    """Gradients of each batch, beside those that the parameters hold."""
    trained = {name: weight for name, weight in weights.items() if weight.requires_grad}
    if not trained:
        raise PruningError("no parameter of the network requires a gradient: unfreeze some, or choose 'l2'")
    for batch in batches:
        device = device_of(model, batch.inputs)
        with evaluating(model), as_written(), keeping_rng(device), _with_gradients():
            found = _gradients_of_batch(model, trained, batch, how, loss)
        yield found


@contextmanager
def _with_gradients() -> Iterator[None]:
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _gradients_of_batch(
    model: nn.Module,
    trained: Mapping[str, Tensor],
    batch: Batch,
    how: OutputGradient,
    loss: Loss | None,
) -> dict[str, Tensor]:
    """Gradients at the first scale that makes them finite, or at the last; only of what they reach."""
    present: dict[str, Tensor] = {}
    for scale in scales(device_of(model, batch.inputs)):
        roots = roots_of(batch.inputs.call(model), batch, how, loss)
        found = gradients_of(roots, list(trained.values()), scale=scale)
        present = {name: grad for name, grad in zip(trained, found, strict=True) if grad is not None}
        if scale == 1 or all_finite(present.values()):
            break
    return present
