"""What one process saves another one loads: pairs of segmentation_models_pytorch, and the small networks."""

import pytest
import segmentation_models_pytorch as smp
import torch

from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.dead import dead_modules
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace
from tests.networks import NETWORKS
from tests.surgery.oracle import randomise_, uneven_plan
from tests.surgery.round_trip import RoundTrips

PAIRS = [  # `make zoo` takes all
    ("unet", "resnet18"),
    ("linknet", "mobilenet_v2"),
    ("pspnet", "resnet18"),
    ("deeplabv3plus", "efficientnet-b0"),
]


def network(name):
    return NETWORKS[name]()


def pair(decoder, encoder):
    return smp.create_model(decoder, encoder, encoder_weights=None, classes=3)


@pytest.fixture(scope="module")
def trips():
    with RoundTrips() as process:
        yield process


def pruned(model, example):
    randomise_(model)
    graph = trace(model, example)
    plan = uneven_plan(graph, 3)
    apply_(model, graph.cut(Plan(plan.kept, plan.sizes, dead_modules(model, graph))))
    return model


@pytest.mark.parametrize(("decoder", "encoder"), PAIRS)
def test_a_pair_answers_alike_in_another_process(decoder, encoder, trips):
    torch.manual_seed(0)
    x = torch.randn(1, 3, 64, 64)
    dense = pair(decoder, encoder)
    held = sum(p.numel() for p in dense.parameters())
    model = pruned(dense, x)
    assert sum(p.numel() for p in model.parameters()) < 0.9 * held
    assert trips.check(model, x, "tests.surgery.test_round_trip:pair", decoder, encoder) == ""


@pytest.mark.parametrize("name", NETWORKS)
def test_a_small_network_answers_alike_in_another_process(name, trips):
    torch.manual_seed(0)
    model = NETWORKS[name]()
    example = model.example()
    model = pruned(model, example)
    assert trips.check(model, example, "tests.surgery.test_round_trip:network", name) == ""


def test_differences_are_told(trips):
    torch.manual_seed(0)
    model = NETWORKS["Chain"]()
    x = model.example()
    pruned(model, x)
    here = "tests.surgery.test_round_trip:network"
    assert "another network" in trips.check(model, x, here, "Residual")
    assert "no attribute" in trips.check(model, x, "tests.surgery.test_round_trip:nothing")
    assert trips.check(model, x, here, "Chain") == ""
