import copy

import pytest
import torch

from seg_pruning.pruning import prune_
from seg_pruning.surgery import operation
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.note import structure_of
from seg_pruning.surgery.operation import operate_
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace
from tests.networks import NETWORKS
from tests.surgery.interrupts import equal, interrupted_everywhere, snapshot
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

    monkeypatch.setattr(operation, "_found_now", broken)
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


def in_training(name="Residual"):
    """A network in the middle of training, a frozen tensor and a layer in eval mode in it."""
    model, graph, inputs = prepared(name)
    model.train().head.eval()
    model.stem.bias.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters())
    model(model.example()).square().mean().backward()
    optimizer.step()
    return model, graph, inputs, optimizer


def test_an_interrupt_at_any_line_leaves_all_as_it_was_or_all_done():
    def start():
        model, graph, inputs, optimizer = in_training()
        plan = Plan({"stem": (0, 1, 2), "inner": (0, 1)}, {"stem": 10, "inner": 7})
        return (lambda: operate_(model, graph, plan, inputs, optimizers=(optimizer,))), (
            lambda: snapshot(model, [optimizer], identity=False)
        )

    files = ("operation.py", "apply.py", "optimizer.py", "cut.py", "structure.py", "certificate.py")
    assert interrupted_everywhere(start, files) > 120


@pytest.mark.parametrize("name", ["Residual", "DeadBranch", "AttributeSize"])
@pytest.mark.parametrize(
    "found", [float("inf"), float("nan"), 2e-4, RuntimeError("boom"), KeyboardInterrupt()], ids=repr
)
def test_a_refused_pruning_leaves_all_as_it_was(name, found, monkeypatch):
    def difference(*_):
        if isinstance(found, float):
            return found
        raise found

    model, _, _, optimizer = in_training(name)
    before = snapshot(model, [optimizer])
    monkeypatch.setattr(operation, "difference", difference)
    with pytest.raises(PruningError if isinstance(found, float) else type(found)):
        prune_(model, model.example(), budget={"params": 0.5}, optimizers=[optimizer])
    assert equal(snapshot(model, [optimizer]), before)
    monkeypatch.undo()
    prune_(model, model.example(), budget={"params": 0.5}, optimizers=[optimizer])
    assert not equal(snapshot(model, [optimizer]), before)


def test_a_module_that_was_dropped_by_mistake_is_named(monkeypatch):
    """Its parameters are never read, but it is called."""

    class Doubles(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, x):
            return 2 * x

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), Doubles(), torch.nn.Conv2d(8, 2, 1))
    x = torch.randn(1, 3, 4, 4)
    graph = trace(model, x)
    before = snapshot(model)
    with pytest.raises(PruningError, match=r"modules that were dropped.*: 1\. Keep them with dead=False"):
        operate_(model, graph, Plan({}, {}, dropped=("1",)), Inputs.of(x))
    assert equal(snapshot(model), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_network_of_half_precision_is_proved_in_single(dtype):
    model, _, _ = prepared("Residual")
    x = model.example().to(dtype)
    small = model.to(dtype)
    graph = trace(small, x)
    plan = Plan({"stem": (0, 3, 4), "inner": (1, 5)}, {"stem": 10, "inner": 7})
    masked = masked_original(small, masks_of(graph, plan, small)).float()
    result = operate_(small, graph, plan, Inputs.of(x))
    assert result.max_error < 1e-5
    assert {p.dtype for p in small.parameters()} == {dtype}
    got = answers(copy.deepcopy(small).float(), x.float())
    assert same(got, answers(masked, x.float()))
