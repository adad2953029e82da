"""What feeds the outputs is found, and is not starved by a global ranking."""

from functools import cache

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from seg_pruning.pruning.budgets import Budget, amounts
from seg_pruning.pruning.heads import feeding_outputs
from seg_pruning.pruning.selection import Selection, select
from seg_pruning.surgery.trial import trace

X = torch.randn(1, 3, 64, 64)


@cache
def unet(classes=1):
    torch.manual_seed(0)
    return trace(smp.Unet("resnet18", encoder_weights=None, classes=classes), X)


def biased_scores(graph, head):
    """Scores by which all of `head` would leave first."""
    return {g.name: torch.arange(1.0, g.size + 1) * (1e-9 if g.name == head else 1) for g in graph.prunable}


@pytest.mark.parametrize("classes", [1, 4])
def test_the_group_before_the_head_is_found(classes):
    assert feeding_outputs(unet(classes)) == {"decoder.blocks.4.conv2.0"}


def test_a_plain_chain():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1))
    assert feeding_outputs(trace(net, X)) == {"1"}


@pytest.mark.parametrize(("head_floor", "kept"), [(0.5, 8), (0.75, 12), (0.0, 1)])
def test_half_of_it_stays_in_a_global_ranking(head_floor, kept):
    graph, (head,) = unet(), feeding_outputs(unet())
    selection = Selection(normalise="none", head_floor=head_floor)
    plan = select(graph, biased_scores(graph, head), Budget(macs=0.5).limit(amounts(graph)), selection)
    assert len(plan.kept[head]) == kept


@pytest.mark.parametrize(("ceiling", "round_to", "kept"), [(5, 1, 5), (0.25, 1, 4), (13, 8, 8), (9, 1, 8)])
def test_a_ceiling_is_above_what_heads_keep_by_default(ceiling, round_to, kept):
    graph, (head,) = unet(), feeding_outputs(unet())
    selection = Selection(normalise="none", ceiling={head: ceiling}, round_to=round_to)
    plan = select(graph, biased_scores(graph, head), Budget(macs=0.5).limit(amounts(graph)), selection)
    assert len(plan.kept[head]) == kept


def test_floors_are_of_the_dense_width():
    graph, (head,) = unet(), feeding_outputs(unet())
    dense = {group.name: 2 * group.size for group in graph.groups}
    plan = select(
        graph,
        biased_scores(graph, head),
        Budget(macs=0.6).limit(amounts(graph)),
        Selection(normalise="none", floor=0.1),
        dense=dense,
    )
    assert head not in plan.kept, "16 channels are half of 32"
    assert all(len(kept) >= 0.1 * dense[name] for name, kept in plan.kept.items())


def test_the_budget_comes_first():
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 2, 1))
    graph = trace(net, X)
    scores = {"0": torch.arange(16.0)}
    plan = select(graph, scores, Budget(params=0.25).limit(amounts(graph)), Selection())
    assert len(plan.kept["0"]) == 3
