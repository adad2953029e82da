"""On the values of a trial no channel can be missed, however fresh or however dead the network is."""

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.func import functional_call

from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.trace import record
from seg_pruning.surgery.trial import trace
from seg_pruning.surgery.trial_values import trial_values


def values_of(net, inputs):
    return trial_values(net, Inputs.of(inputs), record(net, inputs).ops)


def sensitivity(net, values, x, masked):
    """Change of the output, relative to its largest value, where a tensor of `values` is replaced."""
    net.eval()
    with torch.no_grad():
        before = functional_call(net, values, (x,))
        after = functional_call(net, {**values, **masked}, (x,))
    return ((before - after).abs().max() / before.abs().max()).item()


@pytest.mark.parametrize("encoder", ["efficientnet-b0", "mobilenet_v2", "resnet18"])
def test_every_channel_of_a_fresh_network_reaches_the_output(encoder):
    torch.manual_seed(0)
    net, x = smp.Linknet(encoder, encoder_weights=None), torch.randn(1, 3, 64, 64)
    graph, values = trace(net, x), values_of(net, x)
    for group in graph.prunable[::4]:
        member = next(m for m in group.members if m.side == "in")
        index = [slice(None)] * values[member.tensor].ndim
        index[member.dims[-1]] = slice(0, max(1, values[member.tensor].shape[member.dims[-1]] // 2))
        zeroed = values[member.tensor].clone()
        zeroed[tuple(index)] = 0
        assert sensitivity(net, values, x, {member.tensor: zeroed}) > 1e-3, group.name


def test_a_branch_that_begins_at_zero_counts():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    nn.init.zeros_(net[1].weight)
    x = torch.randn(1, 3, 8, 8)
    values = values_of(net, x)
    assert (values["1.weight"] != 0).all()
    assert len(set(values["1.weight"].tolist())) == 8


def test_statistics_fit_what_a_norm_is_given():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1))
    net[0].weight.data *= 1e4
    x = torch.randn(2, 3, 16, 16)
    values = values_of(net, x)
    given = nn.functional.conv2d(x, values["0.weight"], values["0.bias"])
    ratio = values["1.running_var"].sqrt() / given.std((0, 2, 3))
    assert ((ratio > 0.05) & (ratio < 3)).all()


def test_the_network_keeps_its_own_values():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    values_of(net, torch.randn(1, 3, 8, 8))
    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
