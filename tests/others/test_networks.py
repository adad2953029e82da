"""Each network, traced with no settings and cut unevenly, answers as its masked original, in both modes."""

import copy

import pytest
from torch import nn

from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.operation import operate_
from seg_pruning.surgery.trial import random_plan
from tests.others.absent import masked_answers
from tests.others.cases import CASES
from tests.others.traced import traced
from tests.surgery.oracle import answers, same

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning"),
]
SEEDS = (0, 1, 2)


def train_(model: nn.Module) -> nn.Module:
    """Train mode with nothing random in it."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    return model


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CASES)
def test_it_answers_as_its_masked_original(name, seed):
    case = CASES[name]
    dense, graph = traced(name)
    plan = random_plan(graph, seed=seed)
    pruned = copy.deepcopy(dense)
    cut = operate_(pruned, graph, plan, Inputs.of(case.example())).cut
    for example in [case.example, *([case.other] if case.other else [])]:
        expected = masked_answers(dense, cut.masks, example())
        assert same(answers(pruned, example()), expected)
        assert not cut.masks or not same(answers(dense, example()), expected)  # else nothing would be proved
    if case.train:
        got = answers(train_(copy.deepcopy(pruned)), case.other())
        assert same(got, masked_answers(train_(copy.deepcopy(dense)), cut.masks, case.other()))
