"""What `prune_` refuses, and what it undoes where it cannot be proved."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import seg_pruning as sp
from seg_pruning.surgery import certificate, operation
from tests.pruning.small import IMAGE, Small, batches, everything, new_net, same, trained


def arguments(**changes: Any) -> dict[str, Any]:
    return {"example_inputs": IMAGE, "budget": {"params": 0.5}} | changes


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"budget": {"parms": 0.5}}, "no budget is called 'parms'"),
        ({"budget": {"params": 30.5}}, r"budget params=30\.5 is no fraction or amount kept"),
        ({"budget": {"macs": 101}}, "cannot be reached: .* the nearest feasible budget is"),
        ({"budget": {"memory": "all"}}, "budget memory='all' is no fraction or amount"),
        ({"budget": {"params": 0.001}}, "cannot be reached: the smallest reachable is"),
        ({"criterion": "tailor"}, "no criterion is called 'tailor'.*did you mean 'taylor'"),
        ({"criterion": "taylor"}, "Taylor needs gradients"),
        ({"selection": "local"}, r"expected selection to be a Selection\(...\), but got 'local'"),
        ({"optimizers": torch.optim.SGD([torch.zeros(1)])}, "a list, but got one SGD"),
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
