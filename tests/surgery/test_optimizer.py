import copy

import pytest
import torch
from torch import nn

from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace
from tests.networks import NETWORKS
from tests.surgery.oracle import masks_of, uneven_plan


def trained(name, make):
    torch.manual_seed(0)
    model = NETWORKS[name]()
    optimizer = make(model.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        sum(t.square().sum() for t in [model(model.example())]).backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda p, f: torch.optim.SGD(p, 1e-3, momentum=0.9, foreach=f),
        lambda p, f: torch.optim.SGD(p, 1e-3, foreach=f),
        lambda p, f: torch.optim.Adam(p, foreach=f),
        lambda p, f: torch.optim.AdamW(p, foreach=f, amsgrad=True),
        lambda p, f: torch.optim.RMSprop(p, momentum=0.9, centered=True, foreach=f),
        lambda p, f: torch.optim.Adagrad(p, foreach=f),
    ],
    ids=["momentum", "sgd", "adam", "amsgrad", "rmsprop", "adagrad"],
)
@pytest.mark.parametrize("name", ["Chain", "Grouped"])
def test_state_equals_the_sliced_original_and_training_goes_on(name, make, foreach):
    model, optimizer = trained(name, lambda p: make(p, foreach))
    graph = trace(model, model.example())
    plan = uneven_plan(graph, seed=4)
    masks = masks_of(graph, plan, model)
    params = dict(model.named_parameters())
    before = {n: {k: copy.deepcopy(v) for k, v in optimizer.state[p].items()} for n, p in params.items()}
    values = {n: p.detach().clone() for n, p in params.items()}
    apply_(model, graph.cut(plan), optimizers=[optimizer])
    for name, parameter in params.items():
        assert torch.equal(parameter.reshape(-1), values[name][masks[name]])
        for key, value in before[name].items():
            now = optimizer.state[parameter][key]
            if isinstance(value, torch.Tensor) and value.ndim:
                assert now.shape == parameter.shape
                assert torch.equal(now.reshape(-1), value[masks[name]])
            else:
                assert now == value
    old = {n: p.detach().clone() for n, p in params.items()}
    optimizer.zero_grad()
    model(model.example()).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(p, old[n]) for n, p in params.items())


def test_a_step_after_the_cut_equals_the_step_of_the_masked_original():
    """A linear network: the dense step with zeroed gradients, then cut, is the step of the pruned one."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    x = torch.randn(16, 4)
    model(x).square().sum().backward()
    optimizer.step()
    twin = copy.deepcopy(model)
    twin_optimizer = torch.optim.AdamW(twin.parameters(), lr=0.1)
    twin_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    keep = [0, 3, 4]
    graph = trace(model, x)
    apply_(model, graph.cut(Plan({"0": tuple(keep)}, {"0": 8})), optimizers=[optimizer])
    optimizer.zero_grad()
    model(x).square().sum().backward()
    optimizer.step()
    twin_optimizer.zero_grad()
    hidden = twin[0](x)[:, keep]
    (hidden @ twin[1].weight[:, keep].T + twin[1].bias).square().sum().backward()
    twin_optimizer.step()
    assert torch.allclose(model[0].weight, twin[0].weight[keep], atol=1e-6)
    assert torch.allclose(model[1].weight, twin[1].weight[:, keep], atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [lambda p: torch.optim.Adafactor(p), lambda p: torch.optim.LBFGS(p, history_size=3)],
    ids=["adafactor", "lbfgs"],
)
def test_state_that_cannot_be_carried_is_refused_and_nothing_changes(make):
    model = NETWORKS["Residual"]()
    optimizer = make(model.parameters())

    def closure():
        optimizer.zero_grad()
        loss = model(model.example()).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    graph = trace(model, model.example())
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    kept = {"inner": (0, 2)}  # not the first parameter, which holds all of L-BFGS's state
    with pytest.raises(
        PruningError, match=rf"{type(optimizer).__name__} keeps state '\w+'.*clear optimizer.state"
    ):
        apply_(model, graph.cut(Plan(kept, {"inner": 7})), optimizers=[optimizer])
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_dropped_modules_leave_the_optimizer():
    model, optimizer = trained("DeadBranch", torch.optim.AdamW)
    gone = {id(p) for p in model.unused.parameters()}
    optimizer.state[model.unused[0].weight] = {"step": torch.tensor(1.0)}
    graph = trace(model, model.example())
    apply_(model, graph.cut(Plan({}, {}, dropped=("unused",))), optimizers=[optimizer])
    assert isinstance(model.unused, nn.Identity)
    assert not gone & {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert not gone & {id(p) for p in optimizer.state}
    assert len(optimizer.param_groups[0]["params"]) == 4
