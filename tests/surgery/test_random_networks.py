import copy
import os

import torch
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.trial import trace
from tests.surgery.oracle import answers, masked_original, masks_of, randomise_, uneven_plan
from tests.surgery.random_networks import RandomNetwork, programs

HOW_MANY = int(os.environ.get("RANDOM_NETWORKS", "300"))  # `make zoo` asks for more


@settings(max_examples=HOW_MANY, suppress_health_check=list(HealthCheck))
@given(program=programs, seed=st.integers(0, 1000))
def test_no_random_network_is_cut_wrongly(program, seed):
    torch.manual_seed(seed)
    model = randomise_(RandomNetwork(program).double(), seed)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    graph = trace(model, x)
    plan = uneven_plan(graph, seed)
    note(f"{model} {plan.to_json()}")
    masks = masks_of(graph, plan, model)
    cut = graph.cut(plan)
    assert all(torch.equal(mask, cut.masks.get(name, torch.ones_like(mask))) for name, mask in masks.items())
    pruned = copy.deepcopy(model)
    apply_(pruned, cut)
    with FlopCounterMode(display=False) as counter:
        (got,) = answers(pruned, x)
    (expected,) = answers(masked_original(model, masks), x)
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-9 * expected.abs().max()
    if any(group.step > 1 for group in graph.prunable):
        return  # what holds a part of some blocks loses more or less with the choice, not with the widths
    told = graph.costs.params(graph.widths(plan)), graph.costs.macs(graph.widths(plan))
    assert told == (sum(p.numel() for p in pruned.parameters()), counter.get_total_flops() // 2)
