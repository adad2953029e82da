import pytest
import torch
from torch import nn

from seg_pruning.pruning.recalibration import recalibrate_, training_norms
from seg_pruning.surgery.inputs import Inputs


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.3), nn.Dropout(0.5), nn.ReLU(), nn.BatchNorm2d(4)
    )


def calls() -> list[Inputs]:
    generator = torch.Generator().manual_seed(1)
    return [Inputs((torch.rand(2, 3, 5, 5, generator=generator) + step,), {}) for step in range(4)]


def test_statistics_are_the_mean_over_the_batches():
    net = network()
    state, rng = {n: p.clone() for n, p in net.named_parameters()}, torch.get_rng_state()
    recalibrate_(net, training_norms(net), calls())
    values = [net[0](inputs.args[0]).detach() for inputs in calls()]
    means = torch.stack([value.mean((0, 2, 3)) for value in values]).mean(0)
    variances = torch.stack([value.var((0, 2, 3)) for value in values]).mean(0)
    torch.testing.assert_close(net[1].running_mean, means)
    torch.testing.assert_close(net[1].running_var, variances)
    assert net[1].momentum == 0.3
    assert all(module.training for module in net.modules())
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(parameter, state[name]) for name, parameter in net.named_parameters())


def test_dropout_does_not_thin_what_comes_after_it():
    net = network()
    recalibrate_(net, training_norms(net), calls())
    net[1].reset_running_stats()
    expected = torch.stack([net[1](net[0](i.args[0])).relu().mean((0, 2, 3)).detach() for i in calls()]).mean(
        0
    )
    torch.testing.assert_close(net[4].running_mean, expected)


@pytest.mark.parametrize("why", ["frozen", "never reached"])
def test_a_layer_that_is_not_meant_keeps_its_statistics(why):
    net = network()
    net.add_module("other", nn.Identity())
    idle = nn.BatchNorm2d(4)
    idle.running_mean.fill_(3.0)
    if why == "frozen":
        net[3] = idle.eval()
    else:
        net.other.register_module("idle", idle)
    assert (len(training_norms(net))) == (2 if why == "frozen" else 3)
    recalibrate_(net, training_norms(net), calls())
    assert torch.equal(idle.running_mean, torch.full((4,), 3.0))
    assert idle.training == (why != "frozen")


def test_everything_is_put_back_where_a_call_fails():
    net = network()
    with pytest.raises(RuntimeError):
        recalibrate_(net, training_norms(net), [Inputs((torch.rand(2, 7, 5, 5),), {})])
    assert net[1].momentum == 0.3
    assert net.training
    assert torch.equal(net[1].running_var, torch.ones(4))
