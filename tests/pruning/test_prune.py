"""One call, end to end, on networks small enough to look at."""

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import seg_pruning as sp
from seg_pruning.pruning import criteria
from seg_pruning.surgery import certificate, operation
from tests.networks import KeywordInput, Residual

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Small(nn.Module):
    """Two groups: the stream that runs through an addition, and what is inside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.inner, self.outer = nn.Conv2d(12, 20, 3, padding=1), nn.Conv2d(20, 12, 1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        return self.head(self.drop(x + self.outer(self.inner(x).relu())))


def new_net(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    net = Small()
    nn.init.uniform_(net.norm.running_mean)
    nn.init.uniform_(net.norm.running_var, 0.5, 2.0)
    return net


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(2, 3, 8, 8, generator=generator), torch.randint(0, 2, (2, 8, 8), generator=generator))
        for _ in range(3)
    ]


def counted(net: nn.Module, example: Tensor) -> tuple[int, int]:
    """Parameters and MACs, counted with torch alone."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copy.deepcopy(net).eval()(example)
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops() // 2


def masked(net: nn.Module, result: sp.PruneResult) -> nn.Module:
    """The dense network with zeros for what was removed."""
    state = net.state_dict()
    for name, mask in result.cut.masks.items():
        state[name][~mask] = 0
    return net.eval()


def everything(net: nn.Module) -> dict[str, Any]:
    """All that a roll-back has to restore."""
    found: dict[str, Any] = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
    for path, module in net.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, int | float | tuple | str):
                found[f"{path}:{key}"] = value
    return found


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return list(first) == list(second) and all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b
        for a, b in zip(first.values(), second.values(), strict=True)
    )


@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize(
    "criterion",
    [
        "random",
        "l1",
        "l2",
        "taylor",
        criteria.Random(5),
        criteria.Taylor(form="abs", members="out"),
        criteria.L1(members="out"),
    ],
    ids=lambda c: c if isinstance(c, str) else type(c).__name__,
)
def test_every_criterion_ends_below_the_budget_with_the_answers_of_the_masked_original(
    criterion: Any, scope: Any
) -> None:
    net = new_net().eval()
    dense = copy.deepcopy(net)
    result = sp.prune_(
        net,
        IMAGE,
        budget={"params": 0.5, "macs": 0.6},
        criterion=criterion,
        scope=scope,
        data=batches(),
        loss=F.cross_entropy,
    )
    assert (result.before.params, result.before.macs) == counted(dense, IMAGE)
    assert (result.after.params, result.after.macs) == counted(net, IMAGE)
    assert 0.4 * result.before.params < result.after.params <= 0.5 * result.before.params
    assert result.after.macs <= 0.6 * result.before.macs
    assert result.after.flops == 2 * result.after.macs
    assert 0 <= result.max_error < 1e-4
    assert result.cut.plan == result.plan
    assert net.inner.out_channels == len(result.plan.kept["inner"]) == net.inner.weight.shape[0]
    images = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(net(images), masked(dense, result)(images), rtol=1e-4, atol=1e-5)


def test_taylor_removes_what_matters_least_to_the_loss() -> None:
    """Channels that the rest of the network multiplies by zero have no influence, however large they are."""
    net = new_net()
    with torch.no_grad():
        net.outer.weight[:, 5:] = 0
        net.inner.weight[5:] *= 100
    result = sp.prune_(
        net,
        IMAGE,
        budget={"channels": 0.6},
        criterion="taylor",
        protect=("stem",),
        data=batches(),
        loss=F.cross_entropy,
    )
    assert set(range(5)) <= set(result.plan.kept["inner"])
    other = sp.prune_(new_net(), IMAGE, budget={"channels": 0.6}, criterion="l2", protect=("stem",))
    assert set(other.plan.kept) == {"inner"}


@pytest.mark.parametrize("train", [True, False])
def test_modes_flags_and_the_parameters_themselves_stay(train: bool) -> None:
    net = new_net().train(train)
    net.norm.eval()
    net.inner.bias.requires_grad_(False)
    before = dict(net.named_parameters())
    state = torch.get_rng_state()
    sp.prune_(net, IMAGE, budget={"params": 0.5})
    assert {name: id(p) for name, p in net.named_parameters()} == {name: id(p) for name, p in before.items()}
    assert [n for n, p in net.named_parameters() if not p.requires_grad] == ["inner.bias"]
    assert [m.training for m in (net, net.stem, net.drop, net.norm)] == [train, train, train, False]
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_channels_that_are_protected_and_widths_that_are_rounded() -> None:
    net = new_net()
    result = sp.prune_(net, IMAGE, budget={"params": 0.7}, protect=["norm.*"], round_to=8)
    assert set(result.plan.kept) == {"inner"}
    assert (net.stem.out_channels, net.inner.out_channels) == (12, 8)
    net = new_net()
    options = sp.Selection(protect=("inner",), floor=0.5)
    assert set(sp.prune_(net, IMAGE, budget={"params": 0.7}, selection=options).plan.kept) == {"stem"}


def test_nothing_leaves_where_nothing_has_to() -> None:
    net = new_net()
    before = everything(net)
    result = sp.prune_(net, IMAGE, budget={"params": 1.0})
    assert result.before == result.after
    assert not result.plan.kept
    assert not result.cut.masks
    assert same({k: v for k, v in everything(net).items() if k in before}, before)


def arguments(**changes: Any) -> dict[str, Any]:
    return {"example_inputs": IMAGE, "budget": {"params": 0.5}} | changes


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"budget": {"parms": 0.5}}, "no budget is called 'parms'"),
        ({"budget": {"params": 30}}, "budget params=30 is no fraction kept"),
        ({"budget": {"params": 0.001}}, "cannot be reached: the smallest reachable is"),
        ({"criterion": "tailor"}, "no criterion is called 'tailor'.*did you mean 'taylor'"),
        ({"criterion": "taylor"}, "Taylor needs gradients"),
        ({"scope": "layer"}, "expected scope to be one of"),
        ({"protect": ("hed",)}, "protect names 'hed'.*head"),
        ({"protect": "head"}, "expected protect to be a tuple of names"),
        ({"round_to": 0}, "expected round_to"),
        ({"round_to": 8, "selection": sp.Selection()}, "cannot be given beside selection"),
        ({"example_inputs": "image"}, "example inputs"),
        ({"example_inputs": torch.randn(1, 4, 8, 8)}, "does not run on the example inputs"),
    ],
)
def test_a_wrong_argument_is_one_error_and_no_change(wrong: dict[str, Any], message: str) -> None:
    net = new_net()
    before = everything(net)
    with pytest.raises(ValueError, match=message) as caught:
        sp.prune_(net, **arguments(**wrong))
    assert isinstance(caught.value, sp.PruningError)
    assert same(everything(net), before)


def test_what_cannot_be_reached_is_said_before_scores_are_taken() -> None:
    def never() -> Iterator[tuple[Tensor, Tensor]]:
        pytest.fail("data were read")
        yield from batches()

    with pytest.raises(sp.PruningError, match="cannot be reached"):
        sp.prune_(
            new_net(), IMAGE, budget={"params": 1e-3}, criterion="taylor", data=never(), loss=F.cross_entropy
        )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named_as_the_cause(value: float) -> None:
    net = new_net()
    with torch.no_grad():
        net.inner.weight[3, 0, 0, 0] = value
    with pytest.raises(
        sp.PruningError, match=r"^parameters hold values that are not finite: inner\.weight; "
    ):
        sp.prune_(net, IMAGE, budget={"params": 0.5})
    assert net.inner.out_channels == 20


class Blocked(Small):
    """A buffer of -inf, such as masks of attention are."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("never", torch.full((1,), -torch.inf))

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(super().forward(x), self.never)


def test_a_buffer_may_be_infinite() -> None:
    net = Blocked()
    sp.prune_(net, IMAGE, budget={"params": 0.5})
    assert net.inner.out_channels < 20
    assert net.never == -torch.inf


def test_frozen_layers_are_pruned_by_weights_or_protected() -> None:
    net = new_net()
    for layer in (net.stem, net.norm, net.inner, net.outer, net.head):
        layer.requires_grad_(layer is net.head)
    options: dict[str, Any] = {"budget": {"channels": 0.8}, "data": batches(), "loss": F.cross_entropy}
    with pytest.raises(
        sp.PruningError, match="no parameter of 'inner' ever had a gradient: unfreeze it, protect"
    ):
        sp.prune_(net, IMAGE, criterion="taylor", **options)
    assert set(sp.prune_(net, IMAGE, criterion="taylor", protect=("inner",), **options).plan.kept) == {"stem"}
    assert sp.prune_(net, IMAGE, criterion="l2", **options).plan.kept["inner"]


# -- undone where it cannot be proved


def trained(
    net: nn.Module, kind: Callable[..., torch.optim.Optimizer], **options: Any
) -> torch.optim.Optimizer:
    optimizer = kind(net.parameters(), **options)
    for image, target in batches():
        optimizer.zero_grad()
        F.cross_entropy(net(image), target).backward()
        optimizer.step()
    return optimizer


def test_a_cut_that_fails_its_proof_is_undone_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    net = new_net().train()
    optimizer = trained(net, torch.optim.Adam, lr=1e-2)
    before, states = everything(net), copy.deepcopy(optimizer.state_dict())
    gradients = {name: p.grad.clone() for name, p in net.named_parameters()}  # type: ignore[union-attr]
    graph = sp.trace(net, IMAGE)
    monkeypatch.setattr("seg_pruning.pruning.prune.trace", lambda *_: graph)
    monkeypatch.setattr(operation, "TOLERANCE", -1.0)
    monkeypatch.setattr(certificate, "TOLERANCE", -1.0)
    with pytest.raises(
        sp.PruningError, match=r"rolled back\. Groups that cause it: stem, inner\. Protect them"
    ):
        sp.prune_(net, IMAGE, budget={"params": 0.5}, optimizers=[optimizer])
    assert same(everything(net), before)
    assert all(torch.equal(p.grad, gradients[name]) for name, p in net.named_parameters())  # type: ignore[arg-type]
    for key, state in optimizer.state_dict()["state"].items():
        assert all(torch.equal(state[name], states["state"][key][name]) for name in state)


class Secretive(Small):
    """Answers otherwise once `inner` is very thin, which a trial at moderate widths does not show."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2 if self.inner.weight.shape[0] <= 1 else 1)


def test_a_network_that_looks_at_its_own_width_is_caught_and_the_group_is_named() -> None:
    net = Secretive()
    graph = sp.trace(net, IMAGE)
    assert {group.name for group in graph.prunable} == {"stem", "inner"}
    before = everything(net)
    with pytest.raises(sp.PruningError, match=r"Groups that cause it: inner\."):
        sp.prune_(net, IMAGE, budget={"channels": 13 / 32}, protect=("stem",))
    assert same(everything(net), before)
    sp.prune_(net, IMAGE, budget={"params": 0.5})
    assert net.inner.out_channels < 20


# -- what is carried along


@pytest.mark.parametrize(
    ("kind", "options", "keys"),
    [
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, {"momentum_buffer"}),
        (torch.optim.Adam, {"lr": 0.01, "amsgrad": True}, {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}),
        (torch.optim.AdamW, {"lr": 0.01}, {"exp_avg", "exp_avg_sq"}),
    ],
)
def test_optimizers_keep_the_state_of_what_stays(kind: Any, options: dict[str, Any], keys: set[str]) -> None:
    net = new_net()
    optimizer = trained(net, kind, **options)
    names = {p: name for name, p in net.named_parameters()}
    before = {
        names[p]: {k: v.clone() for k, v in state.items() if k in keys}
        for p, state in optimizer.state.items()
    }
    result = sp.prune_(net, IMAGE, budget={"params": 0.4}, optimizers=[optimizer])
    assert {names[p] for p in optimizer.state} == set(before)
    for parameter, state in optimizer.state.items():
        for key in keys:
            dense = before[names[parameter]][key]
            mask = result.cut.masks.get(names[parameter], torch.ones_like(dense, dtype=torch.bool))
            assert torch.equal(state[key], dense[mask].reshape(parameter.shape))
    values = {name: p.detach().clone() for name, p in net.named_parameters()}
    net.train()
    optimizer.zero_grad()
    image, target = batches()[0]
    F.cross_entropy(net(image), target).backward()
    optimizer.step()
    assert all(not torch.equal(p, values[name]) for name, p in net.named_parameters())


def test_a_plain_torch_loop_prunes_as_it_trains_and_its_loss_falls() -> None:
    net = new_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    data, losses, sizes = batches()[:1], [], []
    for epoch in range(30):
        if epoch in (10, 15):
            kept = {10: 0.7, 15: 0.6}[epoch]
            sizes.append(sp.prune_(net, IMAGE, budget={"params": kept}, optimizers=[optimizer]).after.params)
        for image, target in data:
            optimizer.zero_grad()
            loss = F.cross_entropy(net.train()(image), target)
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert sizes[1] <= 0.6 * sizes[0] <= 0.6 * 0.7 * counted(new_net(), IMAGE)[0]
    assert losses[-1] < losses[16] < losses[0]


def test_twice_in_a_row_is_a_share_of_a_share() -> None:
    net = new_net().eval()
    first = sp.prune_(net, IMAGE, budget={"params": 0.6})
    once = copy.deepcopy(net)
    second = sp.prune_(net, IMAGE, budget={"params": 0.6}, criterion="l1")
    assert (second.before.params, second.before.macs) == (first.after.params, first.after.macs)
    assert second.after.params <= 0.6 * first.after.params
    torch.testing.assert_close(net(IMAGE), masked(once, second)(IMAGE), rtol=1e-4, atol=1e-5)


# -- what never runs


def pspnet() -> nn.Module:
    torch.manual_seed(0)
    return smp.PSPNet("resnet18", encoder_weights=None, psp_out_channels=16)


def test_modules_that_never_run_are_dropped_before_channels_leave() -> None:
    net, image = pspnet(), torch.randn(2, 3, 64, 64)
    dense = sum(p.numel() for p in net.encoder.parameters())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    result = sp.prune_(net, image, budget={"params": 0.5}, optimizers=[optimizer])
    assert set(result.plan.dropped) == {"encoder.layer3", "encoder.layer4"}
    assert not result.plan.kept
    assert sum(p.numel() for p in net.encoder.parameters()) <= 0.08 * dense
    assert result.after.params == sum(p.numel() for p in net.parameters())
    assert result.after.macs == result.before.macs
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in net.parameters()}
    net.train()(image).mean().backward()


def test_modules_that_never_run_can_be_kept() -> None:
    net, image = pspnet(), torch.randn(1, 3, 64, 64)
    names = list(net.state_dict())
    result = sp.prune_(net, image, budget={"macs": 0.5}, dead=False)
    assert result.plan.dropped == ()
    assert list(net.state_dict()) == names
    assert net.encoder.layer4[0].conv1.weight.shape == (512, 256, 3, 3)
    with pytest.raises(sp.PruningError, match="cannot be reached"):
        sp.prune_(pspnet(), image, budget={"params": 0.5}, dead=False)


# -- how networks are called, and where they go


class TwoInputs(Small):
    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return super().forward(x) * scale


@pytest.mark.parametrize(
    "example", [(IMAGE, torch.ones(1)), {"scale": torch.ones(1), "x": IMAGE}], ids=["args", "kwargs"]
)
def test_arguments_are_given_by_position_or_by_name(example: Any) -> None:
    net = TwoInputs()
    result = sp.prune_(net, example, budget={"params": 0.5})
    assert net.inner.out_channels < 20
    assert result.max_error < 1e-4


def test_a_network_with_keywords_only() -> None:
    result = sp.prune_(KeywordInput(), KeywordInput.example(), budget={"channels": 0.5})
    assert result.after.params < result.before.params


LOAD = """
import sys, torch, seg_pruning as sp
from tests.networks import Residual
net = Residual()
sp.load_pruned_(net, sys.argv[1])
assert net.inner.out_channels < 7
torch.save(net.eval()(Residual.example()), sys.argv[2])
"""


def test_a_saved_network_answers_alike_in_a_fresh_process(tmp_path: Path) -> None:
    net = Residual()
    sp.prune_(net, Residual.example(), budget={"params": 0.5})
    sp.prune_(net, Residual.example(), budget={"macs": 0.8})
    sp.save_pruned(net, tmp_path / "net.safetensors")
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-c", LOAD, tmp_path / "net.safetensors", tmp_path / "out.pt"], check=True, cwd=root
    )
    torch.testing.assert_close(torch.load(tmp_path / "out.pt"), net.eval()(Residual.example()))
