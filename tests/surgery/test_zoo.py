"""Each decoder and encoder that must be prunable, at random uneven cuts of each group."""

import copy

import pytest
import segmentation_models_pytorch as smp
import torch
from torch.utils.flop_counter import FlopCounterMode

from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.trial import trace
from tests.surgery.oracle import answers, masked_original, masks_of, same, uneven_plan

DECODERS = ("unet", "unetplusplus", "linknet", "fpn", "pspnet", "deeplabv3plus", "segformer")
ENCODERS = (
    "resnet18",
    "resnet34",
    "resnext50_32x4d",
    "vgg11_bn",
    "densenet121",
    "mobilenet_v2",
    "efficientnet-b0",
)
CANNOT_BE_BUILT = {("deeplabv3plus", "vgg11_bn"), ("deeplabv3plus", "densenet121")}  # no dilated mode in smp
PAIRS = [(d, e) for d in DECODERS for e in ENCODERS if (d, e) not in CANNOT_BE_BUILT]


def build(decoder, encoder):
    torch.manual_seed(0)
    model = smp.create_model(decoder, encoder, encoder_weights=None, classes=3).eval()
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(
            module, torch.nn.BatchNorm2d
        ):  # as after training: no two channels alike, none dying out
            for tensor in (module.weight, module.running_var):
                tensor.data = 0.5 + torch.rand(tensor.shape, generator=generator)
            for tensor in (module.bias, module.running_mean):
                tensor.data = torch.rand(tensor.shape, generator=generator) - 0.5
    return model


@pytest.mark.parametrize(("decoder", "encoder"), PAIRS)
def test_pair_is_pruned_as_its_masked_original(decoder, encoder):
    model = build(decoder, encoder)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    graph = trace(model, x)
    pinned = {g.name: g.reason for g in graph.groups if not g.prunable}
    assert set(pinned.values()) <= {"reaches the output", "it has a single channel"}, pinned
    plan = uneven_plan(graph, seed=7)
    masks = masks_of(graph, plan, model)
    dense = answers(model, x)
    expected = answers(masked_original(model, masks), x)
    assert not torch.allclose(dense[0], expected[0], rtol=0.01)  # else the comparison would prove nothing
    pruned = copy.deepcopy(model)
    apply_(pruned, graph.cut(plan))
    with FlopCounterMode(display=False) as counter:
        got = answers(pruned, x)
    assert same(got, expected)
    kept = [len(plan.kept[g.name]) for g in graph.prunable]
    assert graph.costs.params(kept) == sum(p.numel() for p in pruned.parameters())
    assert graph.costs.macs(kept) == counter.get_total_flops() // 2
