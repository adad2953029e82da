import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seg_pruning.pruning.criteria import FPGM
from seg_pruning.pruning.running import parameters_of
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.trial import trace
from tests.networks import PixelShuffle
from tests.pruning.groups import group, member
from tests.pruning.tapped import Mixed, Residual, images, made


def distances(rows: Tensor) -> np.ndarray:
    w = rows.detach().flatten(1).double().numpy()
    return np.array([sum(np.sqrt(((one - other) ** 2).sum()) for other in w) for one in w])


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_is_the_sum_of_distances_within_each_layer(reduce: str) -> None:
    net = made(Residual)
    both = np.array([distances(net.stem.weight), distances(net.outer.weight)])
    scores = FPGM(reduce=reduce)(trace(net, images(1)[0])["stem"], parameters_of(net), {})  # type: ignore[arg-type]
    np.testing.assert_allclose(scores.numpy(), getattr(both, reduce)(0), rtol=1e-6)
    assert scores.dtype is torch.float32


def test_grouped_and_transposed_filters() -> None:
    """A grouped transposed convolution: output 2 * block + j is made by the inputs of its block."""
    net = made(Mixed)
    graph, weights = trace(net, images(1)[0]), parameters_of(net)
    up = net.up.weight.reshape(3, 4, 2, 3, 3).transpose(1, 2).reshape(6, -1)
    expected = distances(up) + distances(net.one.weight[9:])
    np.testing.assert_allclose(FPGM()(graph["up"], weights, {}).numpy(), expected, rtol=1e-6)
    expected = distances(net.grouped.weight) + distances(net.one.weight[:9])
    np.testing.assert_allclose(FPGM()(graph["grouped"], weights, {}).numpy(), expected, rtol=1e-6)


def test_a_channel_of_several_filters_is_all_of_them() -> None:
    net = PixelShuffle().eval()
    graph = trace(net, net.example())  # type: ignore[arg-type]
    expected = distances(net.stem.weight.reshape(5, -1))
    np.testing.assert_allclose(FPGM()(graph["stem"], parameters_of(net), {}).numpy(), expected, rtol=1e-6)


def test_equal_filters_have_distance_zero_however_large() -> None:
    net = nn.Sequential(nn.Conv2d(3, 30, 3), nn.ReLU(), nn.Conv2d(30, 2, 1))
    with torch.no_grad():
        net[0].weight.copy_(net[0].weight[:1].expand(30, -1, -1, -1) * 1000)
    scores = FPGM()(trace(net, images(1)[0])["0"], parameters_of(net), {})
    assert scores.max() < 1e-2


def test_a_group_without_filters_is_named() -> None:
    with pytest.raises(PruningError, match=r"no filters make the channels of 'scale'.*: protect it"):
        FPGM()(group("scale", 2, member("scale", 0, 2, "vector")), {"scale": torch.ones(2)}, {})
    uneven = group("wide", 2, member("w", 0, 3))
    uneven.members[0].units[:] = torch.tensor([0, 0, 1])
    with pytest.raises(PruningError, match="'wide', w: its channels hold between 1 and 2 filters"):
        FPGM()(uneven, {"w": torch.ones(3, 2)}, {})
