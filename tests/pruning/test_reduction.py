from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seg_pruning.pruning.criteria import L1, L2, LAMP, Hessian, Taylor
from seg_pruning.pruning.criteria.elementwise import Elementwise
from seg_pruning.pruning.reduction import marginal
from seg_pruning.pruning.running import RunningScores, parameters_of
from seg_pruning.surgery.graph import ChannelGroup
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace
from tests.networks import NETWORKS, Chain

KINDS = [
    "Chain", "Residual", "Concat", "ConcatWithItself", "Depthwise", "Grouped", "Transposed",
    "GroupedTransposed", "LayerNorm", "Flatten", "Halves", "PixelShuffle", "FusedAttention", "SharedModule",
    "PartlyFixed",
]  # fmt: skip
FINISH = {L1: lambda e: e.abs().sum(), L2: lambda e: e.square().sum().sqrt()}


def gone(graph: Any, group: ChannelGroup, channel: int) -> dict[str, Tensor]:
    """The elements that a real cut of one channel, or of its block's others too, takes."""
    kept = tuple(other for other in range(group.size) if other != channel)
    return {
        k: ~mask
        for k, mask in graph.cut(Plan(kept={group.name: kept}, sizes={group.name: group.size})).masks.items()
    }


@pytest.mark.parametrize("name", [k for k in KINDS if k not in ("Grouped", "GroupedTransposed", "Halves")])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_all_groups_at_once_are_what_cuts_of_single_channels_take(name: str, layout: Any) -> None:
    torch.manual_seed(0)
    net = NETWORKS[name]().eval().to(memory_format=layout)
    graph, weights = trace(net, net.example()), parameters_of(net)
    gradients = {key: torch.randn_like(weight) for key, weight in weights.items()}
    running, squared = RunningScores("l1"), RunningScores("taylor")
    running.update(graph, weights, {})
    squared.update(graph, weights, gradients)
    for group in graph.prunable:
        if group.step > 1:
            continue
        for channel in range(group.size):
            masks = {k: m for k, m in gone(graph, group, channel).items() if k in weights}
            size = sum(float(weights[k].detach()[m].abs().sum()) for k, m in masks.items())
            change = sum(float((weights[k].detach() * gradients[k])[m].sum()) for k, m in masks.items())
            assert float(running.compute()[group.name][channel]) == pytest.approx(size, rel=1e-4)
            assert float(squared.compute()[group.name][channel]) == pytest.approx(
                change**2, rel=1e-2, abs=1e-4
            )


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize("kind", [Taylor, Hessian, L2, LAMP])
@pytest.mark.parametrize("name", KINDS)
def test_equals_the_scores_of_one_group_after_another(name: str, kind: Any, reduce: str) -> None:
    torch.manual_seed(0)
    net = NETWORKS[name]().eval()
    graph, weights = trace(net, net.example()), parameters_of(net)
    gradients = {key: torch.randn_like(w) for key, w in weights.items() if "head" not in key}
    for criterion in (kind(reduce=reduce), kind(reduce=reduce, members="out")):
        running = RunningScores(criterion)
        running.update(graph, weights, gradients)
        for group in graph.prunable:
            torch.testing.assert_close(
                running.compute(unread=list(graph.by_name))[group.name],
                criterion(group, weights, gradients),
                rtol=1e-3,
                atol=1e-4,
            )


@pytest.mark.parametrize("dims", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0)])
def test_marginals_are_sums_over_the_other_dims(dims: tuple[int, ...], order: tuple[int, ...]) -> None:
    values = torch.arange(24.0).reshape([(2, 3, 4)[d] for d in order]).permute(*map(order.index, range(3)))
    assert values.shape == (2, 3, 4)
    letters = "".join("abc"[d] for d in dims)
    torch.testing.assert_close(marginal(values, dims), torch.einsum(f"abc->{letters}", values).reshape(-1))


def test_a_gap_in_memory_is_no_obstacle() -> None:
    values = torch.arange(24.0).reshape(2, 3, 4)[:, ::2, 1:]
    torch.testing.assert_close(marginal(values, (1,)), values.sum((0, 2)))


def test_half_precision_and_autocast_sum_in_float32() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)).eval()
    graph = trace(net, torch.randn(1, 3, 4, 4))
    weights = parameters_of(net.bfloat16())
    gradients = {key: torch.randn_like(weight) for key, weight in weights.items()}
    w, g = (net[0].weight.float().flatten(1), gradients["0.weight"].float().flatten(1))
    change = (w * g).sum(1) + (net[0].bias.float() * gradients["0.bias"].float())
    change = (change + (net[1].weight.float() * gradients["1.weight"].float()).flatten(1).sum(0)).detach()
    running = RunningScores(Taylor(form="abs"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        running.update(graph, weights, gradients)
    torch.testing.assert_close(running.compute()["0"], change.abs(), rtol=1e-5, atol=1e-5)


def test_a_call_of_ones_own_is_asked_and_not_bypassed() -> None:
    class Negated(L2):
        def __call__(self, group: ChannelGroup, weights: Any, gradients: Any) -> Tensor:
            return -super().__call__(group, weights, gradients)

    class Cubed(Elementwise):
        def element(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
            return weight.abs() ** 3

    net = Chain().eval()
    graph, weights = trace(net, net.example()), parameters_of(net)  # type: ignore[arg-type]
    running = RunningScores(Negated())
    running.update(graph, weights, {})
    assert running.compute()["stem"].max() < 0
    running = RunningScores(Cubed(members="out"))
    running.update(graph, weights, {})
    parts = [net.stem.weight.flatten(1), net.norm.weight[:, None], net.norm.bias[:, None]]
    expected = torch.cat(parts, 1).detach().abs().pow(3).sum(1)
    torch.testing.assert_close(running.compute()["stem"], expected)
