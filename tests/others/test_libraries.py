"""Networks of torchvision and timm, as they come."""

import copy

import pytest
import torch
from torchvision.models import segmentation

from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.operation import operate_
from seg_pruning.surgery.trial import random_plan, trace
from tests.others.absent import masked_answers
from tests.others.cases import noise
from tests.others.classifiers import SAMPLE, classifier, lively_
from tests.surgery.oracle import answers, same


def check_cut(dense, seed):
    """Asserts that a random cut answers as the masked original, also in train mode; gives the graph."""
    example = noise(1, 3, 64, 64)
    graph = trace(dense, example)
    pruned = copy.deepcopy(dense)
    cut = operate_(pruned, graph, random_plan(graph, seed=seed), Inputs.of(example)).cut
    other = noise(2, 3, 64, 64, seed=2)
    expected = masked_answers(dense, cut.masks, other)
    assert same(answers(pruned, other), expected)
    assert not same(answers(dense, other), expected)
    return graph


@pytest.mark.parametrize("name", SAMPLE)
def test_classifier(name):
    check_cut(classifier(name), seed=3)


@pytest.mark.parametrize(
    "name", ["fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"]
)
def test_segmentation(name):
    torch.manual_seed(0)
    heads = {} if name.startswith("lraspp") else {"aux_loss": True}
    build = getattr(segmentation, name)
    model = lively_(build(weights=None, weights_backbone=None, num_classes=3, **heads))
    graph = check_cut(model, seed=3)
    assert {g.reason for g in graph.groups if not g.prunable} == {"reaches the output"}
