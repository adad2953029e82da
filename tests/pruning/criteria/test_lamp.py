import numpy as np
import pytest
import torch

from seg_pruning.pruning.criteria import LAMP
from seg_pruning.surgery.graph import ChannelGroup
from tests.pruning.groups import MIDDLE, STREAM, Net, channel_masks, group, member


@pytest.mark.parametrize("of", [STREAM, MIDDLE], ids=lambda g: g.name)
@pytest.mark.parametrize("members", ["all", "out"])
def test_is_the_share_among_channels_at_least_as_large(members: str, of: ChannelGroup) -> None:
    torch.manual_seed(0)
    net = Net()
    weights = dict(net.named_parameters())
    energy = np.array(
        [
            sum(float(weights[name].detach()[mask].square().sum()) for name, mask in masks.items())
            for masks in channel_masks(net, of, consumers=members == "all")
        ]
    )
    expected = [own / energy[energy >= own].sum() for own in energy]
    scores = LAMP(members=members)(of, weights, {})  # type: ignore[arg-type]
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-5)


def test_equal_channels_share_and_order_does_not_matter() -> None:
    pair = group("w", 5, member("w", 0, 5))
    weights = torch.tensor([1.0, 2.0, 0.0, 2.0, -1.0])[:, None]
    expected = torch.tensor([1 / 10, 4 / 8, 0, 4 / 8, 1 / 10])
    for order in (torch.arange(5), torch.tensor([3, 0, 4, 1, 2])):
        torch.testing.assert_close(LAMP()(pair, {"w": weights[order]}, {}), expected[order])
    assert LAMP()(pair, {"w": torch.zeros(5, 1)}, {}).tolist() == [0] * 5
