"""Lifetimes of storages on networks small enough to follow by hand."""

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.trial import trace
from tests.networks import NETWORKS
from tests.surgery.living import peak
from tests.surgery.oracle import uneven_plan

# Small side outputs of two fused ops carry no labels: the statistics of an instance norm, and the
# normaliser of fused attention. They are counted whole.
SIDE_OUTPUTS = {"InstanceNorm": 0.04, "FusedAttention": 0.06}


@pytest.mark.parametrize("name", NETWORKS)
def test_memory_is_foretold_for_the_pruned_network(name: str) -> None:
    for seed in range(2):
        torch.manual_seed(0)
        model = NETWORKS[name]().eval()
        example = model.example()
        graph = trace(model, example)
        whole = graph.whole
        assert graph.costs.memory(whole) == peak(model, example)
        plan = uneven_plan(graph, seed)
        apply_(model, graph.cut(plan))
        kept = graph.widths(plan)
        expected = peak(model, example)
        assert abs(graph.costs.memory(kept) - expected) <= SIDE_OUTPUTS.get(name, 0.0) * expected


@pytest.mark.parametrize(
    "build",
    [
        lambda: smp.UnetPlusPlus("resnet18", encoder_weights=None),
        lambda: smp.FPN("tu-convnext_atto", encoder_weights=None),
        lambda: smp.Segformer("mit_b0", encoder_weights=None),
    ],
    ids=["unetplusplus", "fpn", "segformer"],
)
def test_memory_of_whole_networks(build) -> None:
    torch.manual_seed(0)
    model, image = build().eval(), torch.randn(1, 3, 64, 64)
    graph = trace(model, image)
    plan = uneven_plan(graph, 0)
    kept = graph.widths(plan)
    foretold = graph.costs.memory(kept)
    apply_(model, graph.cut(plan))
    assert foretold == pytest.approx(peak(model, image), rel=0.01)


class Net(nn.Module):
    """Two convolutions without bias; an input of 4 x 4 gives 64 bytes for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 3, 1, bias=False), nn.Conv2d(3, 2, 1, bias=False)


class Sequence(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


class Holding(Net):
    """Holds what nobody reads any more."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        held = [x]
        for _ in range(2):
            x = x + 1
        held.append(x)
        return self.b(x)


class InPlace(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu_().flatten(2).unflatten(2, (4, 4)))


@pytest.mark.parametrize(
    ("kind", "bytes_", "pruned"),
    [
        (Sequence, 64 * (3 + 2), 64 * (1 + 2)),
        # the first, the last but one, the last: more than the first, the last and the answer
        (Holding, 64 * (3 + 3 + 3), 64 * (1 + 1 + 2)),
        (InPlace, 64 * (3 + 2), 64 * (1 + 2)),
    ],
)
def test_bytes_are_those_that_are_held(kind: type[Net], bytes_: int, pruned: int) -> None:
    net = kind()
    graph = trace(net, torch.randn(1, 1, 4, 4))
    assert [group.name for group in graph.prunable] == ["a"]
    assert graph.costs.memory(np.array([3.0])) == bytes_
    assert graph.costs.memory(np.array([1.0])) == pruned


def test_what_lived_is_written_down() -> None:
    trace_ = trace(Holding(), torch.randn(1, 1, 4, 4)).trace
    assert [(b.bytes, b.born, b.died) for b in trace_.buffers] == [
        (192, 0, 4),
        (192, 1, 3),
        (192, 2, 4),
        (128, 3, None),
    ]
    assert [op.split(".")[1] for op in trace_.ops] == ["convolution", "add", "add", "convolution"]
