"""Values for the trials: near the network's own, but such that a wrong index cannot hide.

A fresh network has ones, zeros and norms that fit nothing: a swapped channel would change nothing, or its
signal dies out on the way to the output. So all values are disturbed, and every BatchNorm gets statistics
that fit what it is given.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.passes import tensors_of
from seg_pruning.surgery.replay import Replay, replay

aten = torch.ops.aten

_SEED = 20240412
_BATCH_NORMS = frozenset(
    {
        aten.native_batch_norm,
        aten._native_batch_norm_legit_no_training,
        aten._batch_norm_no_update,
        aten.cudnn_batch_norm,
    }
)


def trial_values(model: nn.Module, inputs: Inputs, ops: Sequence[str]) -> dict[str, Tensor]:
    """Values for all parameters and buffers of `model`, by name; the network itself is untouched.

    Args:
        model: the network.
        inputs: what it is called with.
        ops: names of the ops of its trace, which it has to run again.
    """
    generator = torch.Generator().manual_seed(_SEED)
    values = {name: _disturbed(t.detach(), generator) for name, t in tensors_of(model).items()}
    replay(model, inputs, values, _Calibration(ops, generator))
    return values


def _disturbed(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point() or tensor.ndim == 0 or tensor.numel() == 0:
        return tensor
    known = tensor.float()
    size = torch.linalg.vector_norm(known) / known.numel() ** 0.5
    if not torch.isfinite(size):
        known = torch.nan_to_num(known, nan=0.0, posinf=0.0, neginf=0.0)  # one NaN would hide all else
        size = torch.linalg.vector_norm(known) / known.numel() ** 0.5
    noise = torch.rand(tensor.shape, generator=generator).to(tensor.device).sub_(0.5).mul_(12**0.5)
    scale = 0.2 * size if size > 0 else 0.3 / known[0].numel() ** 0.5
    positive = bool(known.min() >= 0) and bool(size > 0)
    value = noise.mul_(scale).add_(known)
    value = value.abs_() if positive else value
    if value.dtype == tensor.dtype and value.stride() == tensor.stride():
        return value
    # Laid out as the original: strides decide which kernels torch chooses.
    return torch.empty_like(tensor).copy_(value)


class _Calibration(Replay):  # type: ignore[no-untyped-call]
    """Writes statistics that fit the input, up to noise, into each BatchNorm before it runs."""

    def __init__(self, ops: Sequence[str], generator: torch.Generator) -> None:
        super().__init__(ops)
        self.generator = generator

    @override
    def run(self, at: int, func: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The op, the statistics of a BatchNorm fitted before it."""
        if func.overloadpacket in _BATCH_NORMS and args[3] is not None and args[4] is not None:
            self._fit_(args[0], mean=args[3], variance=args[4])
        return func(*args, **kwargs)

    def _fit_(self, x: Tensor, *, mean: Tensor, variance: Tensor) -> None:
        if x.numel() < 2 * x.shape[1]:
            return  # a single value a channel has no spread to fit
        values = x.float().transpose(0, 1).reshape(x.shape[1], -1)
        middle = values.mean(1, keepdim=True)
        # What `std` without correction gives, faster.
        spread = torch.linalg.vector_norm(values - middle, dim=1).div(values.shape[1] ** 0.5).clamp(min=1e-3)
        shift, stretch = (torch.randn(len(spread), generator=self.generator).to(x.device) for _ in range(2))
        mean.copy_(middle.squeeze(1) + 0.3 * shift * spread)
        variance.copy_((spread * (1 + 0.2 * stretch).abs().clamp(min=0.1)).square())
