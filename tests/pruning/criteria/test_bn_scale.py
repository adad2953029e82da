import numpy as np
import pytest
import torch

from seg_pruning.pruning.criteria import BNScale
from seg_pruning.pruning.running import parameters_of
from seg_pruning.pruning.score import score
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.trial import trace
from tests.networks import PReLU
from tests.pruning.groups import MIDDLE, STREAM
from tests.pruning.tapped import Mixed, Residual, images, made


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_is_the_size_of_the_scales_of_the_stream(reduce: str) -> None:
    net = made(Residual)
    with torch.no_grad():
        net.norm.weight[::2] *= -1
    graph = trace(net, images(1)[0])
    gamma = np.abs([net.norm.weight.detach().numpy(), net.last.weight.detach().numpy()])
    expected = getattr(gamma, reduce)(0)
    scores = BNScale(reduce=reduce)(graph["stem"], parameters_of(net), {})  # type: ignore[arg-type]
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-6)
    assert not scores.requires_grad


def test_each_part_of_a_concatenation_has_its_own_norm() -> None:
    net = made(Mixed)
    graph = trace(net, images(1)[0])
    scores = BNScale()(graph["up"], parameters_of(net), {})
    torch.testing.assert_close(scores, net.after.weight.detach().abs())


def test_a_group_without_norm_is_named_with_the_remedy_unless_nobody_reads_it() -> None:
    net = made(Residual)
    graph = trace(net, images(1)[0])
    with pytest.raises(PruningError, match=r"BNScale has no score for 'inner': no norm .*; protect"):
        score(graph, net, "bn_scale")
    assert list(score(graph, net, "bn_scale", unread=["inner"])) == ["stem"]


def test_slopes_of_a_prelu_and_biases_are_no_scales() -> None:
    net = PReLU().eval()
    graph = trace(net, net.example())  # type: ignore[arg-type]
    with pytest.raises(PruningError, match="no norm"):
        BNScale()(graph["stem"], parameters_of(net), {})
    with pytest.raises(PruningError, match="no norm"):
        BNScale()(MIDDLE, {}, {})
    weights = {"norm.weight": torch.tensor([1.0, -2.0, 0.0])}
    assert BNScale()(STREAM, weights, {}).tolist() == [1, 2, 0]
