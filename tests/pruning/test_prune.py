"""One call, end to end, on networks small enough to look at."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import seg_pruning as sp
from seg_pruning.pruning import criteria
from tests.networks import KeywordInput, Residual
from tests.pruning.small import IMAGE, Small, batches, counted, everything, masked, new_net, same


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
