"""What a scoring pass propagates back, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from seg_pruning.pruning.batches import Batch
from seg_pruning.pruning.criteria.base import OutputGradient
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import flatten_tensors, map_tensors

Loss = Callable[..., Tensor]
"""(output, target) -> scalar."""


@dataclass(frozen=True)
class Root:
    """Where a backward pass begins: a tensor and the gradient that it gets."""

    tensor: Tensor
    gradient: Tensor


def roots_of(output: object, batch: Batch, how: OutputGradient, loss: Loss | None) -> list[Root]:
    """Where the backward pass of a batch begins.

    Args:
        output: What the network answered to `batch`.
        batch: The samples and their target.
        how: Which gradient, and whether it is scaled.
        loss: Called with output and target where the gradient is that of the loss.

    Raises:
        PruningError: The loss is no number that depends on the output; an output has no dim of samples.
    """
    if how.source == "random":
        tensors = {id(tensor): tensor for tensor in flatten_tensors(output) if tensor.requires_grad}
        _check_batched(list(tensors.values()), batch)
        noise = _noise([tensor.shape[1:] for tensor in tensors.values()], batch, how.seed)
        roots = [Root(t, n.to(t.device, t.dtype)) for t, n in zip(tensors.values(), noise, strict=True)]
    else:
        assert loss is not None
        if not how.normalise:
            value = _scalar(loss(output, batch.target))
            return [Root(value, torch.ones_like(value))]
        roots = _at_the_output(output, batch, loss)
    return _normalised(roots) if how.normalise else roots


def gradients_of(
    roots: Sequence[Root], inputs: Sequence[Tensor | GradientEdge], *, scale: float
) -> list[Tensor | None]:
    """Gradients of `inputs`; `None` where nothing depends on one.

    Args:
        roots: Where the backward pass begins.
        inputs: Parameters, or outputs of layers.
        scale: The pass runs with gradients this many times as large, which half precision needs.
    """
    if not inputs:
        return []
    grads = [root.gradient * scale for root in roots]
    tensors = [root.tensor for root in roots]
    with torch.autocast(tensors[0].device.type, enabled=False):
        found = torch.autograd.grad(tensors, list(inputs), grads, allow_unused=True)  # type: ignore[arg-type]
    return [None if grad is None else grad if scale == 1 else grad.float() / scale for grad in found]


def scales(device: torch.device) -> Iterator[float]:
    """Factors to try until all results are finite: large ones first where half precision would round to 0."""
    half = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) == torch.float16
    yield from (2.0**16, 2.0**8, 1.0) if half else (1.0,)


def _at_the_output(output: object, batch: Batch, loss: Loss) -> list[Root]:
    """Each output with its part of the loss's gradient, also where one output is computed from another."""
    pairs: list[tuple[Tensor, Tensor]] = []

    def leaf(tensor: Tensor) -> Tensor:
        """A copy at which the backward pass of the loss ends; itself where no gradient goes further."""
        if not tensor.requires_grad:
            return tensor
        pairs.append((tensor, tensor.detach().requires_grad_()))
        return pairs[-1][1]

    value = _scalar(loss(map_tensors(output, leaf), batch.target))
    found = torch.autograd.grad(value, [copy for _, copy in pairs], allow_unused=True)
    reached = [(tensor, grad) for (tensor, _), grad in zip(pairs, found, strict=True) if grad is not None]
    _check_batched([tensor for tensor, _ in reached], batch)
    return [Root(tensor, grad) for tensor, grad in reached]


def _check_batched(tensors: Sequence[Tensor], batch: Batch) -> None:
    if not tensors:
        raise PruningError(
            "no output of the network depends on its parameters: unfreeze some, or choose 'l2'"
        )
    wrong = [tuple(t.shape) for t in tensors if not t.dim() or t.shape[0] != batch.size]
    if wrong:
        raise PruningError(
            f"expected each output that gets a gradient to have its {batch.size} samples along the first "
            f"dim, but got shapes {wrong[:10]}: leave such outputs out of the loss, or take normalise=False "
            "and gradient='loss'"
        )


def _normalised(roots: Sequence[Root]) -> list[Root]:
    """Each sample's gradient scaled to unit L2 norm over all outputs; one of zeros stays."""
    wide = [root.gradient.flatten(1) if root.gradient.dim() > 1 else root.gradient[:, None] for root in roots]
    peak = torch.stack([w.float().abs().amax(1) for w in wide if w.shape[1]]).amax(0)
    peak = peak.masked_fill(peak == 0, 1)  # first by the peak: squares of small gradients would be zero
    norm = torch.stack([(w.float() / peak[:, None]).square().sum(1) for w in wide]).sum(0).sqrt()
    norm = norm.masked_fill(norm == 0, 1)
    found = []
    for root in roots:
        shape = (-1, *[1] * (root.gradient.dim() - 1))
        unit = root.gradient.float() / peak.view(shape) / norm.view(shape)
        found.append(Root(root.tensor, unit.to(root.gradient.dtype)))
    return found


def _noise(shapes: Sequence[torch.Size], batch: Batch, seed: int) -> list[Tensor]:
    """Standard normal noise for each output, the same for a sample whatever batch it is in."""
    samples = []
    for number in range(batch.first, batch.first + batch.size):
        generator = torch.Generator().manual_seed(crc32(f"{seed}/{number}".encode()))
        samples.append([torch.randn(shape, generator=generator) for shape in shapes])
    return [torch.stack(column) for column in zip(*samples, strict=True)]


def _scalar(value: object) -> Tensor:
    """`value`, if it is a loss that can be differentiated."""
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        shown = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.200}"
        free = isinstance(value, Tensor) and not value.requires_grad
        raise PruningError(
            f"expected `loss` to give one number that depends on the parameters, but got {shown}"
            f"{' that does not' if free else ''}: average it over the batch, and do not detach it"
        )
    return value.reshape(())
