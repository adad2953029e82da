"""The masked original, built from `result.plan` and `result.cut.masks` alone, against the pruned network.

What a sceptic would write: nothing of the package but `prune_` takes part in the comparison.
"""

import copy
from collections.abc import Callable
from functools import cache

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

import seg_pruning as sp

SIZE = 64
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet-resnet18": lambda: smp.Unet("resnet18", encoder_weights=None, classes=3),
    "linknet-mobilenet_v2": lambda: smp.Linknet("mobilenet_v2", encoder_weights=None, classes=3),
    "segformer-efficientnet-b0": lambda: smp.Segformer("efficientnet-b0", encoder_weights=None, classes=3),
}
CASES = [(name, seed, params) for name in NETWORKS for seed, params in ((0, 0.7), (1, 0.4), (2, 0.15))]


def dense_network(name: str, seed: int) -> nn.Module:
    """Random weights; norms that fit what they get, as in a trained network, so that no signal dies out."""
    torch.manual_seed(seed)
    net = NETWORKS[name]().train()
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.3)
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        norm.momentum = 1.0
    with torch.no_grad():
        net(torch.randn(4, 3, SIZE, SIZE))
    for norm in norms:
        norm.momentum = 0.1
        norm.running_mean += 0.3 * torch.randn_like(norm.running_mean) * norm.running_var.sqrt()
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.5, 2.0)
    return net.eval()


@cache
def pruned_at_random(name: str, seed: int, params: float) -> tuple[nn.Module, nn.Module, sp.PruneResult]:
    """The dense network, the pruned one and what was said to have been done."""
    dense = dense_network(name, seed)
    net = copy.deepcopy(dense)
    result = sp.prune_(
        net,
        torch.randn(1, 3, SIZE, SIZE),
        budget={"params": params},
        criterion=sp.criteria.Random(seed),
        scope="global",
    )
    return dense, net, result


def masked_original(dense: nn.Module, masks: dict[str, Tensor]) -> nn.Module:
    """A copy of the dense network with zeros where a mask says that something was removed."""
    masked = copy.deepcopy(dense)
    tensors = {**dict(masked.named_parameters()), **dict(masked.named_buffers())}
    with torch.no_grad():
        for name, mask in masks.items():
            tensors[name][~mask] = 0
    return masked


@pytest.mark.parametrize(("name", "seed", "params"), CASES)
def test_the_pruned_network_answers_like_the_masked_original(name: str, seed: int, params: float) -> None:
    dense, net, result = pruned_at_random(name, seed, params)
    masked = masked_original(dense, dict(result.cut.masks))
    generator = torch.Generator().manual_seed(100 + seed)
    images = torch.randn(2, 3, SIZE, SIZE, generator=generator)
    with torch.no_grad():
        expected, got, before = masked(images), net(images), dense(images)
    error = (expected - got).abs().max() / expected.abs().max()
    assert error < 1e-4, f"{name}, seed {seed}: {error}"
    assert (before - got).abs().max() / before.abs().max() > 1e-2  # the cut is no trifle
    assert expected.std() > 1e-3  # and the masked original no constant


@pytest.mark.parametrize("name", NETWORKS)
def test_each_group_matters_so_that_a_wrong_cut_of_it_would_show(name: str) -> None:
    dense, _, result = pruned_at_random(name, 1, 0.4)
    image = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    graph = sp.trace(dense, image)
    with torch.no_grad():
        expected = dense(image)
        for group, kept in result.plan.kept.items():
            alone = graph.cut(sp.Plan({group: kept}, {group: result.plan.sizes[group]}))
            gap = (masked_original(dense, dict(alone.masks))(image) - expected).abs().max()
            assert gap / expected.abs().max() > 1e-3, group


@pytest.mark.parametrize(("name", "seed", "params"), CASES)
def test_every_removed_element_is_really_gone_and_every_other_is_still_there(
    name: str, seed: int, params: float
) -> None:
    dense, net, result = pruned_at_random(name, seed, params)
    dropped = tuple(f"{path}." for path in result.plan.dropped)
    before = {k: t for k, t in dense.state_dict().items() if not k.startswith(dropped)}
    after = net.state_dict()
    assert list(before) == list(after)
    for key, tensor in before.items():
        mask = result.cut.masks.get(key)
        if mask is None:
            assert torch.equal(after[key], tensor), key
        else:
            assert mask.shape == tensor.shape
            assert mask.dtype == torch.bool
            assert not mask.all()
            assert after[key].numel() == int(mask.sum()), key
            assert torch.equal(after[key], tensor[mask].reshape(after[key].shape)), key


@pytest.mark.parametrize(("name", "seed", "params"), CASES)
def test_the_cut_is_uneven_and_as_deep_as_asked(name: str, seed: int, params: float) -> None:
    dense, net, result = pruned_at_random(name, seed, params)
    ratio = sum(p.numel() for p in net.parameters()) / sum(p.numel() for p in dense.parameters())
    assert 0.99 * params <= ratio <= params
    shares = {round(len(kept) / result.plan.sizes[group], 2) for group, kept in result.plan.kept.items()}
    assert len(shares) > 5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_plan_names_the_filters_that_the_masks_keep(seed: int) -> None:
    """A convolution in the decoder reads pruned channels and makes pruned ones: its mask is their product."""
    dense, _, result = pruned_at_random("unet-resnet18", seed, CASES[seed][2])
    first = torch.zeros(256, dtype=torch.bool)
    first[list(result.plan.kept["decoder.blocks.0.conv1.0"])] = True
    second = torch.zeros(256, dtype=torch.bool)
    second[list(result.plan.kept["decoder.blocks.0.conv2.0"])] = True
    mask = result.cut.masks["decoder.blocks.0.conv2.0.weight"]
    assert torch.equal(mask, (second[:, None] & first[None, :])[:, :, None, None].expand_as(mask))
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(result.cut.masks[f"decoder.blocks.0.conv1.1.{name}"], first)
    assert dense.decoder.blocks[0].conv1[0].weight.shape[0] == 256  # type: ignore[union-attr]
