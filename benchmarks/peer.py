"""Torch-Pruning on a network of the zoo: does what it leaves run, and answer like the masked original?

Torch-Pruning numbers channels anew at each step, so its own indices do not say in the end what is gone.
Instead each element of each tensor carries its number while it is cut; what is left tells which were kept.
"""

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass

import timm
import torch
import torch_pruning
from torch import Tensor, nn

_UNIT = 2.0**-24  # float32 holds each multiple of it below 1 exactly
_PROJECTIONS = ("q", "k", "v", "kv", "qkv", "qkv_proj")


@dataclass(frozen=True)
class Left:
    """What Torch-Pruning left of a network.

    Attributes:
        model: the pruned network, with the values that the dense one has there.
        masks: True where an element stayed, for each tensor of the dense network.
        seconds: for its graph and its cut.
    """

    model: nn.Module
    masks: dict[str, Tensor]
    seconds: float


def prune_defaults(dense: nn.Module, images: Tensor) -> Left:
    """Half of each layer at its defaults, with the heads named by hand: else it cuts the classes."""
    return _prune(dense, images, num_heads=False, ignore_attention=False)


def prune_num_heads(dense: nn.Module, images: Tensor) -> Left:
    """The same as its example for timm does it: attention not fused, told its heads, resized afterwards."""
    timm.layers.set_fused_attn(False)
    return _prune(dense, images, num_heads=True, ignore_attention=False)


def prune_without_attention(dense: nn.Module, images: Tensor) -> Left:
    """The same with every module that has heads left out."""
    return _prune(dense, images, num_heads=False, ignore_attention=True)


def _prune(dense: nn.Module, images: Tensor, *, num_heads: bool, ignore_attention: bool) -> Left:
    model = copy.deepcopy(dense)
    _number_(model)
    ignored = [m for m in (model.segmentation_head, model.classification_head) if m is not None]
    ignored += [m for m in _attentions(model) if ignore_attention]
    heads = {
        projection: int(m.num_heads)
        for m in _attentions(model)
        if num_heads
        for projection in _projections(m)
    }
    start = time.perf_counter()
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        images,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=ignored,
        num_heads=heads,
    )
    pruner.step()
    seconds = time.perf_counter() - start
    _resize_attention_(model, pruner.num_heads if num_heads else {})
    return Left(model.eval(), _valued_(model, dense), seconds)


def _attentions(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(getattr(m, "num_heads", None), int)]


def _projections(attention: nn.Module) -> Iterator[nn.Module]:
    for name in _PROJECTIONS:
        child = getattr(attention, name, None)
        if isinstance(child, nn.Linear):
            yield child


def _resize_attention_(model: nn.Module, num_heads: dict[nn.Module, int]) -> None:
    for attention in _attentions(model):
        for projection in _projections(attention):
            if projection in num_heads and isinstance(getattr(attention, "qkv", None), nn.Linear):
                attention.num_heads = num_heads[projection]
                attention.head_dim = projection.out_features // (3 * attention.num_heads)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    held = dict((*model.named_parameters(), *model.named_buffers()))
    return {name: tensor for name, tensor in held.items() if tensor.is_floating_point()}


def _number_(model: nn.Module) -> None:
    """Makes each element its number in its tensor, in an order of chance: importance does not matter here."""
    generator = torch.Generator().manual_seed(0)
    for tensor in _tensors(model).values():
        if tensor.numel() > 1 / _UNIT:
            raise ValueError(f"float32 cannot number the {tensor.numel()} elements of a tensor")
        order = torch.randperm(tensor.numel(), generator=generator)
        tensor.data = order.reshape(tensor.shape).to(tensor.dtype) * _UNIT


def _valued_(model: nn.Module, dense: nn.Module) -> dict[str, Tensor]:
    """Puts the values of `dense` where the numbers are; the masks of what is left."""
    numbered = copy.deepcopy(dense)
    _number_(numbered)
    values, places, masks = _tensors(dense), _tensors(numbered), {}
    for name, tensor in _tensors(model).items():
        order = (places[name].flatten() / _UNIT).long().argsort()
        index = order[(tensor.detach() / _UNIT).round().long()]
        tensor.data = values[name].detach().flatten()[index]
        mask = torch.zeros(values[name].numel(), dtype=torch.bool)
        mask[index.flatten()] = True
        masks[name] = mask.reshape(values[name].shape)
    whole = {name: torch.ones_like(t, dtype=torch.bool) for name, t in dense.named_buffers()}
    return whole | masks
