"""The masked original of a network of the zoo, built from keep masks alone.

Every removed element is zero. What mixes channels is computed over those that stay, which its own arguments
tell: the weight of a norm is zero exactly where a channel is removed.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tests.zoo.networks import Case

CANNOT_BE_MASKED = {
    "tu-eca_nfnet_l0": "its weights are standardised over the channels that are read",
    "tu-nf_regnet_b0": "its weights are standardised over the channels that are read",
}


def cannot_be_masked(case: Case) -> str:
    """Why the tests cannot build the masked original of `case`; empty where they can."""
    return CANNOT_BE_MASKED.get(case.encoder, "")


class Masked(nn.Module):
    """A copy of the dense `model` whose removed elements are zero."""

    def __init__(self, model: nn.Module, masks: dict[str, Tensor]):
        super().__init__()
        self.model = copy.deepcopy(model)
        with torch.no_grad():
            for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers()):
                tensor.mul_(masks[name]) if tensor.is_floating_point() else None

    def forward(self, *args, **kwargs):
        with _OverKept():
            return self.model(*args, **kwargs)


def masked_network(model: nn.Module, masks: dict[str, Tensor]) -> nn.Module:
    """The masked original of `model`."""
    return Masked(model, masks).eval()


class _OverKept(TorchFunctionMode):
    """Computes norms and means of channels over those that stay."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        ours = {
            F.layer_norm: layer_norm,
            F.group_norm: group_norm,
            Tensor.mean: mean,
            Tensor.softmax: softmax,
        }
        return ours.get(func, func)(*args, **(kwargs or {}))


def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    if weight is None or weight.ndim > 1:
        return F.layer_norm(x, normalized_shape, weight, bias, eps)
    kept = weight != 0
    out = torch.zeros_like(x)
    values = x[..., kept]
    mean = values.mean(-1, keepdim=True)
    variance = (values - mean).square().mean(-1, keepdim=True)
    shift = 0 if bias is None else bias[kept]
    out[..., kept] = (values - mean) / (variance + eps).sqrt() * weight[kept] + shift
    return out


def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    out = torch.zeros_like(x)
    for group in torch.arange(x.shape[1]).chunk(num_groups):
        kept = group[weight[group] != 0]
        if not len(kept):
            continue
        values = x[:, kept].flatten(1)
        mean, variance = values.mean(1), values.var(1, correction=0)
        shape = (-1, *[1] * (x.ndim - 1))
        normed = (x[:, kept] - mean.view(shape)) / (variance + eps).sqrt().view(shape)
        out[:, kept] = normed * weight[kept].view(shape[0], *shape[2:]) + bias[kept].view(
            shape[0], *shape[2:]
        )
    return out


def softmax(x, dim):
    square = x.ndim > 2 and x.shape[-1] == x.shape[-2] and dim in (-1, x.ndim - 1)
    # Channels attend to channels: what is multiplied with a channel of zeros is zero in every row.
    gone = (x == 0).all(-2, keepdim=True) & square
    gone = gone & ~gone.all(-1, keepdim=True)  # a head that is gone as a whole
    return x.masked_fill(gone, -torch.inf).softmax(dim)


def mean(x, dim=None, keepdim=False, **kwargs):
    if not isinstance(dim, int) or x[0].numel() != x.shape[dim]:
        return x.mean() if dim is None else x.mean(dim, keepdim, **kwargs)
    kept = x != 0  # one number for each channel: the mean of a global response norm
    return x.sum(dim, keepdim) / kept.sum(dim, keepdim)
