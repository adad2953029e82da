import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from seg_pruning.surgery.apply import apply_
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
        kept = [len(plan.kept[group.name]) for group in graph.prunable]
        assert graph.costs.params(kept) == sum(p.numel() for p in model.parameters())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            Inputs.of(model.example()).call(model)
        assert graph.costs.macs(kept) == counter.get_total_flops() // 2
