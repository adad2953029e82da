"""Scores from what layers put out, in a pass over data."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from seg_pruning.profiling.inference import as_written, device_of, evaluating, keeping_rng
from seg_pruning.pruning.batches import Batch
from seg_pruning.pruning.criteria.base import listed
from seg_pruning.pruning.criteria.members import reduced, wide
from seg_pruning.pruning.criteria.outputs import OutputCriterion
from seg_pruning.pruning.makers import Maker, Part, makers_of
from seg_pruning.pruning.propagation import Loss, gradients_of, roots_of, scales
from seg_pruning.pruning.recorder import Call, Recorder, undo_shared
from seg_pruning.pruning.running import Scores, all_finite, check_observed
from seg_pruning.surgery.errors import PruningError

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGraph, ChannelGroup

Sums = dict[tuple[str, str], Tensor]
"""(layer, group) -> sum over samples of a measure of each channel."""


class _Means:
    """Sums over the batches seen so far."""

    def __init__(self) -> None:
        self.samples = 0
        self.skipped = 0
        self.sums: Sums = {}
        self.called: set[str] = set()
        self.reached: set[str] = set()

    def add(self, found: Sums | None, samples: int) -> None:
        """Adds a batch; `None` for one whose sums are not finite."""
        if found is None:
            self.skipped += 1
            return
        self.samples += samples
        for key, value in found.items():
            self.sums[key] = self.sums[key] + value if key in self.sums else value


def score_outputs(
    graph: ChannelGraph,
    model: nn.Module,
    criterion: OutputCriterion,
    batches: Iterable[Batch],
    *,
    loss: Loss | None = None,
    unread: Collection[str] = (),
) -> Scores:
    """Scores of the prunable groups from the outputs of the layers that make them.

    A batch whose numbers are not finite is skipped. Modes, gradients, buffers, hooks and the random state of
    `model` are as before.

    Args:
        graph: The groups.
        model: The network.
        criterion: What is measured.
        batches: The samples.
        loss: Called with output and target, where the gradient of the loss is needed.
        unread: Names of groups that are left out.

    Raises:
        PruningError: A group has no layer whose output could be looked at, or no gradient ever reached one;
            there was no batch with finite numbers.
    """
    makers, means = makers_of(graph, model, unread=unread), _Means()
    for batch in batches:
        device = device_of(model, batch.inputs)
        with (
            evaluating(model),
            as_written(),
            keeping_rng(device),
            _tracked(model, needed=criterion.gradients),
        ):
            tried = scales(device) if criterion.gradients else (1.0,)
            sums = (_observe(model, makers, criterion, batch, loss, means, scale) for scale in tried)
            finite = next((found for found in sums if found is not None), None)
        means.add(finite, batch.size)
    check_observed(means.samples, means.skipped)
    groups = [group for group in graph.groups if group.prunable and group.name not in unread]
    _check_seen(makers, means, needs_gradients=criterion.gradients)
    return {group.name: _concluded(group, makers, criterion, means) for group in groups}


def _observe(
    model: nn.Module,
    makers: list[Maker],
    criterion: OutputCriterion,
    batch: Batch,
    loss: Loss | None,
    means: _Means,
    scale: float,
) -> Sums | None:
    """Forward, backward if need be, and what the layers' outputs come to; `None` if that is not finite."""
    recorder = Recorder(makers)
    with recorder.listening(model):
        output = batch.inputs.call(model)
    gradients: dict[int, Tensor | None] = {}
    if criterion.gradients:
        roots = roots_of(output, batch, criterion.output_gradient, loss)
        undo_shared(recorder.calls, [root.tensor for root in roots])
        tracked = [call for call in recorder.calls if call.edge is not None]
        grads = gradients_of(roots, [call.edge for call in tracked if call.edge], scale=scale)
        gradients = {id(call): grad for call, grad in zip(tracked, grads, strict=True)}
        means.reached |= {c.maker.layer for c in tracked if gradients[id(c)] is not None}
    calls: dict[str, list[Call]] = {}
    for call in recorder.calls:
        calls.setdefault(call.maker.layer, []).append(call)
    means.called |= set(calls)
    with torch.no_grad(), torch.autocast(device_of(model, batch.inputs).type, enabled=False):
        found = _measured(calls, gradients, criterion, batch)
    return found if not found or all_finite(found.values()) else None


def _measured(
    calls: Mapping[str, list[Call]],
    gradients: Mapping[int, Tensor | None],
    criterion: OutputCriterion,
    batch: Batch,
) -> Sums:
    """Sums over the samples of a batch."""
    found: Sums = {}
    for layer, made in calls.items():
        maker = made[0].maker
        values = torch.cat([_laid_out(call.value, maker, batch) for call in made], -1)
        slopes = None
        if criterion.gradients:
            given = [gradients.get(id(call)) for call in made]
            slopes = torch.cat(
                [
                    _laid_out(torch.zeros_like(call.value) if grad is None else grad, maker, batch)
                    for call, grad in zip(made, given, strict=True)
                ],
                -1,
            )
        for part in maker.parts:
            mine = None if slopes is None else _chosen(slopes, part)
            measured = criterion.measure(_chosen(values, part), mine)
            _check_shape(measured, (batch.size, len(part.channels)), criterion)
            found[layer, part.group] = measured.sum(0)
    return found


def _laid_out(tensor: Tensor, maker: Maker, batch: Batch) -> Tensor:
    """As float32 `(N, C, places)`; what a network folds into the batch, such as windows, are places."""
    values = wide(tensor)
    if values.dim() + maker.axis == 0:  # a single sample without a dim of its own
        values = values[None]
    lead = values.shape[0]
    if not batch.size or lead % batch.size:
        raise PruningError(
            f"expected {maker.layer!r} to put out its {batch.size} samples along the first dim, but its "
            f"output is of shape {tuple(tensor.shape)}: choose a criterion of weights, such as "
            "Taylor(of='weight')"
        )
    channels = values.movedim(maker.axis, 1)
    folded = channels.reshape(batch.size, lead // batch.size, channels.shape[1], -1)
    return folded.transpose(1, 2).flatten(2)


def _chosen(values: Tensor, part: Part) -> Tensor:
    """The channels of one group; the places of all filters of a channel laid end to end."""
    places = part.places.reshape(-1)
    if torch.equal(places, torch.arange(values.shape[1])):
        return values.reshape(len(values), len(part.places), -1)
    return values[:, places.to(values.device)].reshape(len(values), len(part.places), -1)


def _check_shape(measured: Tensor, shape: tuple[int, int], criterion: OutputCriterion) -> None:
    if tuple(measured.shape) != shape:
        raise PruningError(
            f"expected measure of {type(criterion).__name__} to give a number for each sample and channel, "
            f"shape {shape}, but got {tuple(measured.shape)}: reduce the last dim"
        )


def _check_seen(makers: list[Maker], means: _Means, *, needs_gradients: bool) -> None:
    """A layer that was never heard would be a part of a score that is silently missing."""
    remedy = "protect the group, or choose a criterion of weights, such as Taylor(of='weight')"
    unheard = [maker for maker in makers if maker.layer not in means.called]
    if unheard:
        names = listed([part.group for maker in unheard for part in maker.parts])
        raise PruningError(
            f"{listed([maker.layer for maker in unheard])}, of which channels of {names} come, never put "
            f"anything out that could be looked at: its weights are used without calling it; {remedy}"
        )
    if needs_gradients:
        groups = {part.group for maker in makers for part in maker.parts}
        lit = {part.group for m in makers if m.layer in means.reached for part in m.parts}
        if groups - lit:
            raise PruningError(
                f"no gradient ever reached what the layers of {listed(sorted(groups - lit))} put out: the "
                f"loss does not depend on it, or it is computed without gradients; {remedy}"
            )


def _concluded(group: ChannelGroup, makers: list[Maker], criterion: OutputCriterion, means: _Means) -> Tensor:
    """The score of a group: of each layer, then reduced over layers."""
    parts, held = [], []
    for maker in makers:
        for part in (part for part in maker.parts if part.group == group.name):
            mean = means.sums[maker.layer, group.name] / means.samples
            channels = part.channels.to(mean.device)
            parts.append(mean.new_zeros(group.size).index_copy(0, channels, criterion.conclude(mean)))
            held.append(torch.zeros(group.size, dtype=torch.bool).index_fill(0, part.channels, True))
    device = parts[0].device
    return reduced(parts, [h.to(device) for h in held], reduce=criterion.reduce).float()


@contextmanager
def _tracked(model: nn.Module, *, needed: bool) -> Iterator[None]:
    """Gradients of all outputs inside, also of frozen layers; none at all where they are not needed."""
    frozen = [p for p in model.parameters() if needed and not p.requires_grad and p.is_floating_point()]
    with torch.inference_mode(False), torch.set_grad_enabled(needed):
        try:
            for parameter in frozen:
                parameter.requires_grad_(True)
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)
