"""A function between two convolutions, cut and compared with the dense network without those filters."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.operation import operate_
from seg_pruning.surgery.trial import random_plan, trace
from tests.others.absent import masked_answers
from tests.surgery.oracle import answers, randomise_, same


class Sandwich(nn.Module):
    """`after(function(before(x)))`, all of it two-dimensional."""

    def __init__(self, function: Callable[[Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, width, 3, padding=1)
        self.function = function
        with torch.no_grad():
            made = function(self.before(torch.rand(2, 3, 8, 8)))
        self.after = nn.Conv2d(made.shape[1], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.function(self.before(x)))


def check_cut(function: Callable[[Tensor], Tensor], width: int = 12) -> None:
    """Asserts that the channels between are offered, and that without some of them it answers as it must."""
    dense = randomise_(Sandwich(function, width))
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)) - 0.5
    graph = trace(dense, x)
    assert "before" in [g.name for g in graph.prunable], {g.name: g.reason for g in graph.groups}
    for seed in range(2):
        pruned = copy.deepcopy(dense)
        cut = operate_(pruned, graph, random_plan(graph, seed=seed), Inputs.of(x)).cut
        expected = masked_answers(dense, cut.masks, x)
        assert pruned.before.weight.shape[0] < width
        assert same(answers(pruned, x), expected)
        assert not same(answers(dense, x), expected)
