import copy

import pytest
import torch

from seg_pruning.surgery import operation
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.operation import operate_
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.structure import structure_of
from seg_pruning.surgery.trial import trace
from tests.networks import NETWORKS
from tests.surgery.oracle import answers, masked_original, masks_of, randomise_, same, uneven_plan


def prepared(name):
    torch.manual_seed(0)
    model = randomise_(NETWORKS[name]())
    return model, trace(model, model.example()), Inputs.of(model.example())


@pytest.mark.parametrize("name", ["Residual", "GroupNorm", "MeanGate", "LayerNorm"])
def test_a_proved_cut(name):
    model, graph, inputs = prepared(name)
    plan = uneven_plan(graph, 1)
    expected = masked_original(model, masks_of(graph, plan, model))
    result = operate_(model.train(), graph, plan, inputs)
    assert model.training
    assert 0 <= result.max_error < 1e-5
    assert structure_of(model).max_error == result.max_error
    assert name == "MeanGate" or same(
        answers(model.eval(), model.example()), answers(expected, model.example())
    )


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_a_proof_that_breaks_leaves_the_network_as_it_was(error, monkeypatch):
    model, graph, inputs = prepared("Residual")
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    answers_before, before = answers(model, model.example()), copy.deepcopy(model.state_dict())

    def broken(*_):
        raise error

    monkeypatch.setattr(operation, "_error_now", broken)
    with pytest.raises(type(error)):
        operate_(model, graph, uneven_plan(graph, 1), inputs, optimizers=(optimizer,))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(answers(model, model.example())[0], answers_before[0])
    assert structure_of(model) is None


def test_a_wrong_cut_is_refused_and_rolled_back_and_the_groups_are_named(monkeypatch):
    model, graph, inputs = prepared("Residual")
    before = copy.deepcopy(model.state_dict())
    real = operation.plan_cut

    def mistaken(graph_, plan):
        cut = real(graph_, plan)
        masks = dict(cut.masks)
        if "head.weight" in masks:  # reads the channels in another order than they come
            masks["head.weight"] = masks["head.weight"].flip(1)
        return type(cut)(cut.plan, masks, cut.sizes, cut.dropped)

    monkeypatch.setattr(operation, "plan_cut", mistaken)
    plan = Plan({"stem": (0, 1, 2), "inner": (0, 1)}, {"stem": 10, "inner": 7})
    real_masked = operation.masked_output
    monkeypatch.setattr(
        operation, "masked_output", lambda m, g, c, *rest: real_masked(m, g, real(g, c.plan), *rest)
    )
    with pytest.raises(PruningError, match=r"rolled back.*protect"):
        operate_(model, graph, plan, inputs)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert structure_of(model) is None


def test_an_output_that_is_not_finite_proves_nothing():
    model, graph, inputs = prepared("Residual")
    model.head.bias.data[0] = float("nan")
    with pytest.raises(PruningError, match="not finite"):
        operate_(model, graph, uneven_plan(graph, 1), inputs)
    assert structure_of(model) is None
