import pytest
import torch

from seg_pruning.surgery.certificate import certify, difference
from seg_pruning.surgery.cut import Cut
from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace
from tests.networks import NETWORKS
from tests.surgery.oracle import randomise_, uneven_plan


def prepared(name):
    torch.manual_seed(0)
    model = randomise_(NETWORKS[name]())
    return model, trace(model, model.example()), Inputs.of(model.example())


@pytest.mark.parametrize(
    "name", ["Grouped", "GroupNorm", "LayerNorm", "MeanGate", "WeightNorm", "FusedAttention"]
)
def test_a_right_cut_passes_and_nothing_is_changed(name):
    model, graph, inputs = prepared(name)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    certificate = certify(model, graph, graph.cut(uneven_plan(graph, 2)), inputs)
    assert certificate.passed
    assert certificate.max_error < 1e-5
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_removed_may_hold_anything(value):
    model, graph, inputs = prepared("Residual")
    model.inner.weight.data[1] = value
    certificate = certify(model, graph, graph.cut(Plan({"inner": (0, 2)}, {"inner": 7})), inputs)
    assert certificate.max_error < 1e-5
    assert not certify(model, graph, graph.cut(Plan({"inner": (1, 2)}, {"inner": 7})), inputs).passed


def test_a_cut_that_takes_other_channels_from_one_tensor_fails():
    model, graph, inputs = prepared("Residual")
    cut = graph.cut(Plan({"inner": (0, 2)}, {"inner": 7}))
    masks = {**cut.masks, "outer.weight": cut.masks["outer.weight"].flip(1)}
    certificate = certify(model, graph, Cut(cut.plan, masks, cut.sizes, cut.dropped), inputs)
    assert not certificate.passed
    assert certificate.max_error > 1e-3


def test_a_cut_that_breaks_the_network_fails_with_its_error():
    model, graph, inputs = prepared("Residual")
    cut = graph.cut(Plan({"inner": (0, 2)}, {"inner": 7}))
    masks = {name: mask for name, mask in cut.masks.items() if name != "outer.weight"}
    certificate = certify(model, graph, Cut(cut.plan, masks, cut.sizes, cut.dropped), inputs)
    assert not certificate.passed
    assert "RuntimeError" in certificate.failure


@pytest.mark.parametrize(
    ("expected", "got", "error"),
    [
        ([1.0, -4.0], [1.0, -4.0], 0.0),
        ([1.0, -4.0], [1.0, -3.0], 0.25),
        ([0.0, 0.0], [0.0, 1e-9], float("inf")),
        ([1.0, 2.0], [1.0, float("nan")], float("inf")),
        ([1.0, 2.0], [1.0], float("inf")),
    ],
)
def test_difference(expected, got, error):
    assert difference([torch.tensor(expected)], [torch.tensor(got)]) == error
