"""The masked original, built from kept indices alone: no mask, site or label of the code under test is used.

Every element of every tensor that belongs to a removed channel is set to zero. Norms over channels
are replaced by norms over the channels whose affine weight stays, written out here.
"""

import copy
import random

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from seg_pruning.surgery.graph import ChannelBranches, ChannelGraph
from seg_pruning.surgery.inputs import Inputs, flatten_tensors
from seg_pruning.surgery.plan import Plan


def randomise_(model: nn.Module, seed: int = 0) -> nn.Module:
    """Gives every tensor random values, so that no two channels are alike; eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            noise = noise.to(tensor.dtype)
            tensor.data = 0.5 + noise if name.endswith(("running_var", "original0")) else tensor + noise - 0.5
    return model.eval()


def uneven_plan(graph: ChannelGraph, seed: int) -> Plan:
    """A legal plan with a ratio of its own for each group; each block keeps as many as every other.

    Every other time some blocks that may leave as a whole do.
    """
    rng = random.Random(seed)
    kept = {}
    for group in graph.groups:
        width = len(group.rows[0])
        if group.prunable:
            count = rng.randint(1, max(1, width - 1))
            kept[group.name] = tuple(sorted(i for row in group.rows for i in rng.sample(row, count)))
    for branches in graph.branches:
        if rng.random() < 0.5:
            gone = rng.sample(range(branches.size), rng.randint(1, branches.size - 1))
            kept |= without_branches(graph, kept, branches, gone)
    return Plan(kept, {name: graph[name].size for name in kept})


def without_branches(
    graph: ChannelGraph, kept: dict[str, tuple[int, ...]], branches: ChannelBranches, gone: list[int]
) -> dict[str, tuple[int, ...]]:
    """What is `kept` of the groups of `branches` when the blocks of some of them are `gone`."""
    left = {}
    for name, rows in branches.rows.items():
        lost = {i for branch in gone for i in graph[name].rows[rows[branch]]}
        left[name] = tuple(i for i in kept.get(name, range(graph[name].size)) if i not in lost)
    return left


def masks_of(graph: ChannelGraph, plan: Plan, model: nn.Module) -> dict[str, Tensor]:
    """True where an element stays, for each tensor, from the members of the groups."""
    tensors = dict((*model.named_parameters(), *model.named_buffers()))
    masks = {name: torch.ones(tensor.shape, dtype=torch.bool) for name, tensor in tensors.items()}
    for name, kept in plan.kept.items():
        for member in graph[name].members:
            gone = (member.units >= 0) & ~torch.isin(member.units, torch.tensor(kept))
            shape = [size if d in member.dims else 1 for d, size in enumerate(masks[member.tensor].shape)]
            masks[member.tensor] &= ~gone.reshape(shape)
    return masks


class KeptGroupNorm(nn.Module):
    def __init__(self, norm: nn.GroupNorm, kept: Tensor):
        super().__init__()
        self.norm, self.kept = norm, kept

    def forward(self, x):
        out = torch.zeros_like(x)
        for group in torch.arange(x.shape[1]).chunk(self.norm.num_groups):
            stay = group[self.kept[group]]
            values = x[:, stay]
            mean = values.mean((1, 2, 3), keepdim=True)
            scale = ((values - mean).square().mean((1, 2, 3), keepdim=True) + self.norm.eps).sqrt()
            weight, bias = self.norm.weight[stay, None, None], self.norm.bias[stay, None, None]
            out[:, stay] = (values - mean) / scale * weight + bias
        return out


class KeptLayerNorm(nn.Module):
    def __init__(self, norm: nn.LayerNorm, kept: Tensor):
        super().__init__()
        self.norm, self.kept = norm, kept

    def forward(self, x):
        out = torch.zeros_like(x)
        values = x[..., self.kept]
        mean = values.mean(-1, keepdim=True)
        scale = ((values - mean).square().mean(-1, keepdim=True) + self.norm.eps).sqrt()
        out[..., self.kept] = (values - mean) / scale * self.norm.weight[self.kept] + self.norm.bias[
            self.kept
        ]
        return out


def _plain(module: nn.Conv2d) -> nn.Conv2d:
    """A convolution with the weight that the parametrised one computes."""
    plain = nn.Conv2d(module.in_channels, module.out_channels, module.kernel_size, padding=module.padding)
    plain.weight.data = module.weight.detach().nan_to_num(0.0)  # a filter of zeros has no direction
    plain.bias.data = module.bias.detach()
    return plain


def masked_original(model: nn.Module, masks: dict[str, Tensor]) -> nn.Module:
    """A copy of the dense `model` whose removed elements are zero."""
    masked = copy.deepcopy(model).eval()
    with torch.no_grad():
        for name, tensor in (*masked.named_parameters(), *masked.named_buffers()):
            tensor.mul_(masks[name]) if tensor.is_floating_point() else None
    for path, module in list(masked.named_modules()):
        if isinstance(module, nn.GroupNorm):
            masked.set_submodule(path, KeptGroupNorm(module, masks[f"{path}.weight"]))
        if isinstance(module, nn.LayerNorm):
            masked.set_submodule(path, KeptLayerNorm(module, masks[f"{path}.weight"]))
        if parametrize.is_parametrized(module, "weight"):
            masked.set_submodule(path, _plain(module))
    return masked


def answers(model: nn.Module, example: object) -> list[Tensor]:
    """All tensors that `model` gives for `example`."""
    with torch.no_grad():
        return [t.clone() for t in flatten_tensors(Inputs.of(example).call(model))]


def same(got: list[Tensor], expected: list[Tensor]) -> bool:
    """Whether two lists of outputs agree to float32 rounding."""
    shapes = [t.shape for t in got] == [t.shape for t in expected]
    return shapes and all(
        (g - e).abs().max() <= 1e-4 * e.abs().max() for g, e in zip(got, expected, strict=True)
    )
