import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.costs import Amount, CostModel, Share
from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.trial import trace
from tests.networks import NETWORKS
from tests.surgery.oracle import uneven_plan


@pytest.mark.parametrize("name", NETWORKS)
def test_predicted_costs_are_those_of_the_pruned_network(name):
    for seed in range(2):
        torch.manual_seed(0)
        model = NETWORKS[name]().eval()
        graph = trace(model, model.example())
        plan = uneven_plan(graph, seed)
        apply_(model, graph.cut(plan))
        kept = graph.widths(plan)
        assert graph.costs.params(kept) == sum(p.numel() for p in model.parameters())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            Inputs.of(model.example()).call(model)
        assert graph.costs.macs(kept) == counter.get_total_flops() // 2


@pytest.mark.parametrize("name", ["Paths", "Grouped", "GroupedTransposed", "Depthwise"])
def test_predicted_lengths_are_those_of_the_pruned_weights(name):
    model = NETWORKS[name]().eval()
    graph = trace(model, model.example())
    dims = [(n, dim) for n, p in model.named_parameters() for dim in range(2) if p.ndim == 4]
    for seed in range(6):
        plan, pruned = uneven_plan(graph, seed), copy.deepcopy(model)
        apply_(pruned, graph.cut(plan))
        expected = [pruned.get_parameter(n).shape[dim] for n, dim in dims]
        assert graph.lengths(dims).each(graph.widths(plan)).round(6).tolist() == expected


# conv 3 -> 8 (3x3, bias) on 10x10, conv 12 -> 4 (1x1) that reads 8 + 4 channels, a head of 2 fixed outputs
WIDTH_A, WIDTH_B = Share(0, {0: 1}, 8), Share(0, {1: 1}, 4)
PARAMS = [
    Amount(3 * 8 * 9, (WIDTH_A,)),
    Amount(8, (WIDTH_A,)),
    Amount(12 * 4, (Share(4, {0: 1}, 12), WIDTH_B)),
    Amount(4 * 2, (WIDTH_B,)),
    Amount(2, ()),
]
MACS = [Amount(3 * 8 * 9 * 100, (WIDTH_A,)), Amount(12 * 4 * 100, (Share(4, {0: 1}, 12), WIDTH_B))]


@pytest.mark.parametrize(("a", "b"), [(8, 4), (5, 3), (1, 1), (8, 1), (3, 4)])
def test_amounts_fall_with_the_product_of_their_kept_shares(a, b):
    costs = CostModel(("a", "b"), params=PARAMS, macs=MACS)
    assert costs.params([a, b]) == 27 * a + a + (4 + a) * b + 2 * b + 2
    assert costs.macs([a, b]) == 2700 * a + 100 * (4 + a) * b


def test_a_group_may_stand_several_times_or_twice_in_one_array():
    twice = Share(1, {0: 2, 1: 0.5}, 12)  # 2 * 4 + 0.5 * 6 + 1
    costs = CostModel(
        ("a", "b"), params=[Amount(24, (twice,)), Amount(16, (Share(0, {0: 1}, 4),) * 2)], macs=[]
    )
    assert costs.params([4, 6]) == 24 + 16
    assert costs.params([1, 2]) == 24 * (2 + 1 + 1) / 12 + 1
    assert costs.macs([1, 2]) == 0


def test_large_amounts_are_exact():
    macs = [Amount(2**40 * 7 + 3 * 7, (Share(0, {0: 1}, 7),))] * 5
    assert CostModel(("a",), params=[], macs=macs).macs([3]) == 5 * 3 * (2**40 + 3)
