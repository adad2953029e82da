from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seg_pruning.pruning.criteria import Activation, OutputCriterion, Taylor
from seg_pruning.pruning.score import score
from seg_pruning.surgery.trial import trace
from tests.pruning.tapped import Residual, assert_scores, by_sample, data_for, images, made, with_weight


def test_a_norm_with_its_own_activation_is_read_before_that() -> None:
    class NormAct(nn.BatchNorm2d):
        def __init__(self, size: int) -> None:
            super().__init__(size)
            self.drop, self.act = nn.Identity(), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.drop(super().forward(x)))

    net = made(Residual)
    fused = made(Residual)
    fused.last = NormAct(10).eval()
    fused.last.load_state_dict(net.last.state_dict())
    with torch.no_grad():
        x = net.last(net.outer(net.inner(net.norm(net.stem(images(2)[0])).relu()).relu()))
        stem = net.norm(net.stem(images(2)[0]))
    scores = score(trace(fused, images(1)[0]), fused, Activation(), data=images(2))
    torch.testing.assert_close(scores["stem"], x.abs().mean((0, 2, 3)) + stem.abs().mean((0, 2, 3)))


@pytest.mark.parametrize("criterion", [Taylor(of="activation", normalise=True), Activation()])
def test_the_network_is_as_before_also_after_an_error(criterion: OutputCriterion) -> None:
    net = made(Residual).train()
    net.last.eval()
    net.inner.requires_grad_(False)
    net.head.weight.grad = torch.ones_like(net.head.weight)
    graph, data = trace(net, images(1)[0]), data_for(net, 3)
    held, rng = net.head.weight.grad, torch.get_rng_state()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    def assert_as_before() -> None:
        assert net.training
        assert not net.last.training
        assert [n for n, p in net.named_parameters() if not p.requires_grad] == ["inner.weight", "inner.bias"]
        assert net.head.weight.grad is held
        assert held.eq(1).all()
        assert all(p.grad is None for n, p in net.named_parameters() if n != "head.weight")
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
        assert torch.equal(torch.get_rng_state(), rng)
        assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())

    with torch.no_grad():
        score(graph, net, criterion, data=data, loss=with_weight)
    assert_as_before()
    broken = [(torch.zeros(1, 4, 8, 8), data[0][1])]
    with pytest.raises(RuntimeError):
        score(graph, net, criterion, data=broken, loss=with_weight)
    assert_as_before()


def test_a_layer_that_is_run_again_in_the_backward_pass_is_heard_once() -> None:
    class Checkpointed(Residual):
        def forward(self, image: Tensor, keep: Any = None) -> Any:
            return checkpoint(super().forward, image, keep, use_reentrant=False)

    net, twin = made(Residual), Checkpointed().eval()
    twin.load_state_dict(net.state_dict())
    graph, data = trace(net, images(1)[0]), data_for(net, 3)
    criterion = Taylor(of="activation", form="abs", normalise=True)
    assert_scores(
        score(graph, twin, criterion, data=data, loss=with_weight),
        by_sample(net, data, "abs", normalise=True),
    )


def test_a_norm_after_an_activation_in_place_does_not_follow_directly() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm, self.head = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.stem(x).relu_()))

    net = Late().eval()
    nn.init.uniform_(net.norm.weight, 2.0, 3.0)
    scores = score(trace(net, images(1)[0]), net, Activation(), data=images(2))
    torch.testing.assert_close(scores["stem"], net.stem(images(2)[0]).abs().mean((0, 2, 3)).detach())
