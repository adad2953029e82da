import pytest
import torch

from seg_pruning.pruning.criteria import L1, L2
from seg_pruning.surgery.graph import ChannelGroup
from tests.pruning.groups import MIDDLE, STREAM, Net, channel_masks


@pytest.mark.parametrize("of", [STREAM, MIDDLE], ids=lambda g: g.name)
@pytest.mark.parametrize("members", ["all", "out"])
@pytest.mark.parametrize(("criterion", "order"), [(L1, 1), (L2, 2)])
def test_is_the_norm_of_all_elements_of_the_channel(
    criterion: type[L1 | L2], order: int, members: str, of: ChannelGroup
) -> None:
    torch.manual_seed(0)
    net = Net()
    weights = dict(net.named_parameters())
    expected = [
        torch.cat([weights[name].detach()[mask] for name, mask in masks.items()]).norm(order)
        for masks in channel_masks(net, of, consumers=members == "all")
    ]
    scores = criterion(members=members)(of, weights, {})  # type: ignore[arg-type]
    assert not scores.requires_grad
    torch.testing.assert_close(scores, torch.stack(expected))
