import copy

import numpy as np
import pytest
import torch
from torch import nn

from seg_pruning import prune_
from seg_pruning.pruning.compensation import RIDGE, compensate_, compensation
from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace

KEPT = (0, 2, 3)
READERS = {
    "Conv1d": (nn.Conv1d, nn.Conv1d(5, 4, 3), (7,)),
    "Conv2d": (nn.Conv2d, nn.Conv2d(5, 4, 3, stride=2), (6, 7)),
    "Conv2d without bias": (nn.Conv2d, nn.Conv2d(5, 4, 3, bias=False), (6, 7)),
    "Conv3d": (nn.Conv3d, nn.Conv3d(5, 4, 2), (4, 4, 5)),
    "ConvTranspose2d": (nn.Conv2d, nn.ConvTranspose2d(5, 4, 2, stride=2), (4, 5)),
    "Linear": (nn.Linear, nn.Linear(5, 4), ()),
}


def network(kind):
    """A layer of five channels, a ReLU, and the layer that reads them."""
    torch.manual_seed(0)
    first, reader, places = READERS[kind]
    x = torch.randn(40 if kind == "Linear" else 4, 6, *places)
    writer = first(6, 5, *[1] * bool(places))
    return nn.Sequential(writer, nn.ReLU(), copy.deepcopy(reader)), x


def cut_of(model, x, kept=KEPT):
    graph = trace(model, x)
    (group,) = (group for group in graph.prunable if group.size == 5)
    return graph.cut(Plan({group.name: kept}, {group.name: group.size}))


@pytest.mark.parametrize("kind", READERS)
def test_it_is_the_ridge_regression_of_the_removed_channels_on_the_kept_ones(kind):
    """The oracle: numpy's least squares on what the layer reads, the ridge as rows of its own."""
    model, x = network(kind)
    cut = cut_of(model, x)
    changes = compensation(model, cut, [Inputs.of(x[:2]), Inputs.of(x[2:])])
    with torch.no_grad():
        read = model[1](model[0](x))
    rows = (read.movedim(1, -1)).reshape(-1, 5).double().numpy()
    gone = [i for i in range(5) if i not in KEPT]
    centred = rows - rows.mean(0)
    ridge = np.sqrt(RIDGE * centred[:, KEPT].var(0).mean() * len(rows)) * np.eye(len(KEPT))
    stacked = np.concatenate([centred[:, KEPT], ridge])
    wanted = np.concatenate([centred[:, gone], np.zeros((len(KEPT), len(gone)))])
    combined = np.linalg.lstsq(stacked, wanted, rcond=None)[0]
    weight, change = (t.detach().double().numpy() for t in (model[2].weight, changes["2.weight"]))
    if kind != "ConvTranspose2d":
        weight, change = np.moveaxis(weight, 1, 0), np.moveaxis(change, 1, 0)
    wanted = np.einsum("kr,r...->k...", combined, weight[gone])
    np.testing.assert_allclose(change[list(KEPT)], wanted, atol=1e-5)
    assert not change[gone].any()
    assert ("2.bias" in changes) is (model[2].bias is not None)
    if "2.bias" in changes:
        rest = rows.mean(0)[gone] - combined.T @ rows.mean(0)[list(KEPT)]
        shift = np.einsum("r,ro...->o...", rest, weight[gone]).reshape(4, -1).sum(1)
        shift /= 4 if kind == "ConvTranspose2d" else 1  # each place gets one position of its kernel
        np.testing.assert_allclose(changes["2.bias"].numpy(), shift, atol=1e-5)


@pytest.mark.parametrize("kind", ["Conv2d", "ConvTranspose2d", "Linear"])
def test_channels_that_others_can_say_are_not_missed(kind):
    model, x = network(kind)
    with torch.no_grad():  # channel 1 is half of channel 0, and channel 4 is channel 3
        for parameter in model[0].parameters():
            parameter[1], parameter[4] = parameter[0] / 2, parameter[3]
        dense = model(x)
        cut = cut_of(model, x)
        plain, made_up = copy.deepcopy(model), copy.deepcopy(model)
        apply_(plain, cut)
        apply_(made_up, cut)
        compensate_(made_up, cut, compensation(model, cut, [Inputs.of(x)]))
        missed, left = ((net(x) - dense).square().mean() for net in (plain, made_up))
    assert left < 1e-3 * missed


class Twins(nn.Module):
    """A weight that two layers use."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.reader, self.twin = nn.Conv2d(6, 5, 1), nn.Conv2d(5, 4, 3), nn.Conv2d(5, 4, 3)
        self.twin.weight = self.reader.weight

    def forward(self, x):
        read = self.first(x).relu()
        return self.reader(read) - self.twin(read.sin())


def frozen():
    model, _ = network("Conv2d")
    model[2].weight.requires_grad_(False)
    return model


def grouped():
    return nn.Sequential(nn.Conv2d(6, 8, 1), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 4, 1))


@pytest.mark.parametrize(
    ("make", "left"), [(frozen, "2.weight"), (Twins, "reader.weight"), (grouped, "1.weight")]
)
def test_weights_that_are_frozen_shared_or_in_groups_stay(make, left):
    model, x = make(), torch.randn(2, 6, 6, 7)
    graph = trace(model, x)
    plan = Plan(
        {g.name: tuple(row[0] for row in g.rows) for g in graph.prunable},
        {g.name: g.size for g in graph.prunable},
    )
    cut = graph.cut(plan)
    assert left in cut.masks
    assert left not in compensation(model, cut, [Inputs.of(x)])


class ByKeyword(nn.Sequential):
    """Calls its layers by keyword, counts its calls, and one of them never sees a position."""

    def forward(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        self[3](self[0](input=x)[:0])
        return self[2](input=self[1](self[0](input=x)))


def test_layers_called_by_keyword_or_with_nothing():
    model, x = network("Conv2d")
    wanted = compensation(model, cut_of(model, x), [Inputs.of(x)])
    other = ByKeyword(*model, nn.Conv2d(5, 2, 1))
    other(x)
    found = compensation(other, cut_of(other, x), [Inputs.of(x)])
    assert other.calls == 1
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_network_that_answers_nan_on_the_data_is_left_as_it_is():
    model, x = network("Conv2d")
    assert compensation(model, cut_of(model, x), [Inputs.of(x * torch.nan)]) == {}


def small(images):
    """A network whose norms know `images`."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16, momentum=None), nn.ReLU()]
    layers += [nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16, momentum=None), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Conv2d(16, 2, 1)).train()
    for x in images:
        net(x)
    return net.eval()


def test_prune_makes_up_for_its_cut():
    """On smooth images, whose channels resemble one another; the modes and the random state stay."""
    generator = torch.Generator().manual_seed(1)
    coarse = [torch.randn(4, 3, 4, 4, generator=generator) for _ in range(3)]
    images = [nn.functional.interpolate(x, 16, mode="bilinear") for x in coarse]
    errors = {}
    for compensate in (False, True):
        net = small(images)
        with torch.no_grad():
            dense = [net(x) for x in images]
        net[1].train()
        state = torch.get_rng_state()
        result = prune_(net, images[0], budget={"params": 0.5}, data=iter(images), compensate=compensate)
        assert torch.equal(torch.get_rng_state(), state)
        assert (result.max_error < 1e-5, net.training, net[1].training) == (True, False, True)
        with torch.no_grad():
            got = [net.eval()(x) for x in images]
        errors[compensate] = sum((x - y).square().mean() for x, y in zip(got, dense, strict=True))
    assert errors[True] < 0.5 * errors[False]


def test_prune_needs_data_for_it():
    net = small([torch.randn(2, 3, 16, 16)])
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(PruningError, match=r"compensate=True reads .*give `data`"):
        prune_(net, torch.randn(1, 3, 16, 16), budget={"params": 0.5}, compensate=True)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
