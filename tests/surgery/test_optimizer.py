"""What an optimizer knows of the channels that stay is carried through a cut; what cannot be is refused."""

import copy

import pytest
import torch
from torch import Tensor, nn

from seg_pruning.surgery.apply import Journal, apply_
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.optimizer import cut_states
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace
from tests.networks import NETWORKS
from tests.surgery.oracle import masks_of, uneven_plan

optim = torch.optim
EITHER = {  # those that have a foreach form too
    "sgd": lambda p, **form: optim.SGD(p, 1e-3, **form),
    "momentum": lambda p, **form: optim.SGD(p, 1e-3, momentum=0.9, nesterov=True, **form),
    "adam": lambda p, **form: optim.Adam(p, **form),
    "amsgrad": lambda p, **form: optim.AdamW(p, amsgrad=True, **form),
    "rmsprop": lambda p, **form: optim.RMSprop(p, momentum=0.9, centered=True, **form),
    "adagrad": lambda p, **form: optim.Adagrad(p, **form),
    "nadam": lambda p, **form: optim.NAdam(p, **form),
    "radam": lambda p, **form: optim.RAdam(p, **form),
    "adamax": lambda p, **form: optim.Adamax(p, **form),
    "adadelta": lambda p, **form: optim.Adadelta(p, 1.0, **form),
    "asgd": lambda p, **form: optim.ASGD(p, t0=0, **form),
    "rprop": lambda p, **form: optim.Rprop(p, **form),
    "adafactor": lambda p, **form: optim.Adafactor(p, **form),
}
FUSED = ("sgd", "momentum", "adam", "amsgrad", "adagrad")
FORMS = [(name, {"foreach": flag}) for name in EITHER for flag in (False, True)]
FORMS += [(name, {"fused": True}) for name in FUSED]
IDS = [f"{name}-{next(iter(form.items()))}" for name, form in FORMS]


def step(model, optimizer):
    optimizer.zero_grad()
    model(model.example()).square().mean().backward()
    optimizer.step()


def trained(name, make, steps=2):
    torch.manual_seed(0)
    model = NETWORKS[name]()
    optimizer = make(groups_of(model))
    for _ in range(steps):
        step(model, optimizer)
    return model, optimizer


def groups_of(model):
    """Two groups with settings of their own; the second has the biases and norms."""
    wide = [p for p in model.parameters() if p.ndim > 1]
    return [{"params": wide}, {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 1e-3}]


def by_hand(value: object, mask: Tensor) -> object:
    """What stays of one entry of the state of a parameter."""
    if not isinstance(value, Tensor) or value.numel() == 1:
        return copy.deepcopy(value)
    if value.shape == mask.shape:
        return value[mask].clone()
    if value.ndim == 2:
        return value[mask.any(1)].clone() if value.shape[1] == 1 else value[:, mask.any(0)].clone()
    assert value.ndim == 4, value.shape  # a convolution's: the reduced dim is spatial, where nothing is cut
    spatial = mask[..., :1] if value.shape[3] == 1 else mask[..., :1, :]
    return value[spatial].clone()


def equal(a, b):
    return torch.equal(a.reshape(-1), b.reshape(-1)) if isinstance(a, Tensor) else a == b


@pytest.mark.parametrize(("kind", "form"), FORMS, ids=IDS)
@pytest.mark.parametrize("name", ["Chain", "Grouped", "LayerNorm"])
def test_state_equals_the_sliced_original_and_the_next_step_is_that_of_a_fresh_optimizer(name, kind, form):
    def make(params):
        return EITHER[kind](params, **form)

    model, optimizer = trained(name, make)
    graph = trace(model, model.example())
    plan = uneven_plan(graph, seed=4)
    masks = masks_of(graph, plan, model)
    params = dict(model.named_parameters())
    wanted = {n: {k: by_hand(v, masks[n]) for k, v in optimizer.state[p].items()} for n, p in params.items()}
    values = {n: p.detach().clone() for n, p in params.items()}
    apply_(model, graph.cut(plan), optimizers=[optimizer])
    assert sum(p.numel() for p in params.values()) < sum(v.numel() for v in values.values())
    for n, p in params.items():
        assert torch.equal(p.reshape(-1), values[n][masks[n]])
        assert p.grad.shape == p.shape
        assert list(optimizer.state[p]) == list(wanted[n])
        assert all(equal(optimizer.state[p][k], wanted[n][k]) for k in wanted[n])

    twin = copy.deepcopy(model)
    fresh = make(groups_of(twin))
    for n, p in twin.named_parameters():
        for k, v in wanted[n].items():
            like = optimizer.state[params[n]][k]
            fresh.state[p][k] = v.reshape(like.shape) if isinstance(v, Tensor) else v
    step(model, optimizer)
    step(twin, fresh)
    moved = [n for n, p in params.items() if not torch.equal(p.reshape(-1), values[n][masks[n]])]
    assert moved == list(params)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("kind", list(EITHER))
def test_state_that_does_not_exist_yet_comes_with_the_first_step(kind):
    model, optimizer = trained("Chain", EITHER[kind], steps=0)
    graph = trace(model, model.example())
    apply_(model, graph.cut(Plan({"stem": (0, 4, 5)}, {"stem": 10})), optimizers=[optimizer])
    before = [p.detach().clone() for p in model.parameters()]
    for _ in range(2):
        step(model, optimizer)
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_groups_keep_their_parameters_and_settings():
    model, optimizer = trained("Chain", EITHER["adam"])
    settings = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    members = [[id(p) for p in g["params"]] for g in optimizer.param_groups]
    graph = trace(model, model.example())
    apply_(model, graph.cut(Plan({"stem": (0, 4, 5)}, {"stem": 10})), optimizers=[optimizer])
    assert [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups] == settings
    assert [[id(p) for p in g["params"]] for g in optimizer.param_groups] == members


def test_a_state_dict_goes_into_an_optimizer_of_the_pruned_network():
    model, optimizer = trained("Chain", EITHER["amsgrad"])
    graph = trace(model, model.example())
    apply_(model, graph.cut(Plan({"stem": (0, 4, 5)}, {"stem": 10})), optimizers=[optimizer])
    twin = copy.deepcopy(model)
    fresh = EITHER["amsgrad"](groups_of(twin))
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(model, optimizer)
    step(twin, fresh)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


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


def refused(model, optimizer, message):
    """Asserts that a cut is refused, and that nothing was written before."""
    graph = trace(model, model.example())
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()["state"]))
    cut = graph.cut(Plan({"inner": (0, 2)}, {"inner": 7}))  # not the first parameter
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "write", lambda *_: pytest.fail("something was written"))
        with pytest.raises(PruningError, match=message):
            apply_(model, cut, optimizers=[optimizer])
    after = (model.state_dict(), optimizer.state_dict()["state"])
    assert all(torch.equal(v, before[0][k]) for k, v in after[0].items())
    assert str(after[1]) == str(before[1])
    return cut


def test_lbfgs_is_refused_until_its_state_is_cleared():
    torch.manual_seed(0)
    model = NETWORKS["Residual"]()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=1e-3, history_size=3)

    def closure():
        optimizer.zero_grad()
        loss = model(model.example()).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    cut = refused(model, optimizer, r"LBFGS keeps state '\w+'.*clear optimizer.state")
    optimizer.state.clear()
    apply_(model, cut, optimizers=[optimizer])
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step(closure)
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(7, 10),  # factored, but which dims it has is not said
        torch.zeros(7, 10, 3),
        torch.zeros(4),
        [torch.zeros(7, 10, 3, 3)],
        {"row": torch.zeros(7)},
        torch.zeros(7, 10, 3, 3).to_sparse(),
    ],
    ids=["two dims", "three dims", "other size", "list", "dict", "sparse"],
)
def test_state_of_unknown_shape_is_refused(value):
    model, optimizer = trained("Residual", EITHER["sgd"])
    optimizer.state[model.inner.weight]["own"] = value
    refused(model, optimizer, "SGD keeps state 'own'.*clear optimizer.state")


def test_tensors_of_a_group_and_state_under_other_keys_are_refused():
    model, optimizer = trained("Residual", EITHER["sgd"])
    optimizer.param_groups[0]["slots"] = [torch.zeros(9)]
    refused(model, optimizer, "'slots' with a group of parameters")
    del optimizer.param_groups[0]["slots"]
    optimizer.state["shared"] = {"basis": torch.zeros(9)}
    with pytest.raises(PruningError, match="'basis' of all parameters together"):
        list(cut_states(optimizer, {model.inner.weight: torch.ones(7, 10, 3, 3, dtype=torch.bool)}))


def test_a_learning_rate_that_is_a_tensor_stays():
    model, optimizer = trained("Chain", lambda p: torch.optim.Adam(p, lr=torch.tensor(1e-3), foreach=False))
    rate = optimizer.param_groups[0]["lr"]
    graph = trace(model, model.example())
    apply_(model, graph.cut(Plan({"stem": (0, 4, 5)}, {"stem": 10})), optimizers=[optimizer])
    step(model, optimizer)
    assert optimizer.param_groups[0]["lr"] is rate


def test_factored_state_of_blocks_that_keep_different_columns_is_refused():
    parameter = nn.Parameter(torch.zeros(4, 6))
    optimizer = torch.optim.Adafactor([parameter])
    parameter.grad = torch.ones(4, 6)
    optimizer.step()
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[:2, [0, 1, 2]] = True
    mask[2:, [1, 2, 4]] = True
    with pytest.raises(PruningError, match=r"Adafactor keeps state 'col_var' of shape \(1, 6\)"):
        list(cut_states(optimizer, {parameter: mask}))
    mask[2:] = mask[0]
    mask[3] = False
    changed = {key: tuple(value.shape) for _, key, value in cut_states(optimizer, {parameter: mask})}
    assert changed == {"row_var": (3, 1), "col_var": (1, 3)}


def test_sparse_gradients_are_refused():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 6, sparse=True), nn.Linear(6, 2))
    x = torch.arange(5)
    graph = trace(model, x)
    model(x).sum().backward()
    cut = graph.cut(Plan({"0#2": (0, 4)}, {"0#2": 6}))
    with pytest.raises(PruningError, match=r"gradients of 0\.weight are sparse.*zero_grad"):
        apply_(model, cut)
    assert model[0].weight.shape == (9, 6)
    model.zero_grad()
    apply_(model, cut)
    assert model[0].weight.shape == (9, 2)


@pytest.mark.parametrize(("kind", "form"), [("adam", {"fused": True}), ("sgd", {}), ("adafactor", {})])
def test_dropped_modules_leave_the_optimizer(kind, form):
    torch.manual_seed(0)
    model = NETWORKS["DeadBranch"]()
    live = [p for n, p in model.named_parameters() if not n.startswith("unused")]
    optimizer = EITHER[kind]([{"params": live}, {"params": list(model.unused.parameters())}], **form)
    optimizer.state[model.unused[0].weight] = {"step": torch.tensor(1.0)}
    gone = {id(p) for p in model.unused.parameters()}
    graph = trace(model, model.example())
    apply_(model, graph.cut(Plan({}, {}, dropped=("unused",))), optimizers=[optimizer])
    assert isinstance(model.unused, nn.Identity)
    assert [len(group["params"]) for group in optimizer.param_groups] == [4, 0]
    assert not gone & {id(p) for p in optimizer.state}
    before = [p.detach().clone() for p in live]
    step(model, optimizer)
    assert not any(torch.equal(p, q) for p, q in zip(live, before, strict=True))
