"""Blocks that may not leave as a whole, since more than their number is seen of them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.trial import trace
from tests.networks import conv
from tests.surgery.oracle import answers, masked_original, masks_of, randomise_, same, uneven_plan
from tests.surgery.test_branches import Base


class Literal(Base):
    def forward(self, x):
        x = F.conv2d(self.stem(x), self.grouped.weight, self.grouped.bias, padding=1, groups=3)
        return self.head(torch.sigmoid(x))


class Computed(Base):
    def forward(self, x):
        x = torch.sigmoid(self.stem(x))
        x = F.conv2d(x, self.grouped.weight, None, padding=1, groups=x.shape[1] // 4)
        return self.head(torch.sigmoid(x))


class Shuffled(Base):
    def after(self, x):
        n, c, h, w = x.shape
        groups = self.grouped.groups
        return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class PerGroup(Base):
    def after(self, x):
        n, c, h, w = x.shape
        parts = x.view(n, self.grouped.groups, c // self.grouped.groups, h, w)
        return (parts * parts.sum(2, keepdim=True)).view(n, c, h, w)


class Chunked(Base):
    def __init__(self):
        super().__init__()
        self.head = conv(9, 2)

    def after(self, x):
        a, b = x.chunk(2, 1)
        return a * b


class Split(Base):
    def __init__(self):
        super().__init__()
        self.parts, self.left, self.right = [6, 12], conv(6, 5), conv(12, 5)
        self.head = conv(10, 2)

    def after(self, x):
        a, b = torch.split(x, self.parts, 1)
        return torch.cat([self.left(a), self.right(b)], 1)


class OtherNorm(Base):
    def __init__(self):
        super().__init__()
        self.norm = nn.GroupNorm(9, 18)

    def after(self, x):
        return self.norm(x)


class OtherGroups(Base):
    def __init__(self):
        super().__init__()
        self.more = conv(18, 18, groups=2)

    def after(self, x):
        return self.more(x)


class Joined(Base):
    """Reads half of its groups from each of two layers."""

    def __init__(self):
        super().__init__()
        self.grouped, self.side = conv(24, 18, groups=2), conv(12, 12)

    def before(self, x):
        return torch.cat([x, self.side(x)], 1)


class SharedNumber(Base):
    """One attribute is the number of groups of two convolutions that have nothing else in common."""

    def __init__(self):
        super().__init__()
        self.number = 3
        self.expand, self.more, self.head = conv(18, 12), conv(12, 15, groups=3), conv(15, 2)

    def forward(self, x):
        x = torch.sigmoid(self.stem(x))
        x = F.conv2d(x, self.grouped.weight, None, padding=1, groups=self.number)
        x = self.expand(torch.sigmoid(x)).relu()
        return self.head(F.conv2d(x, self.more.weight, None, padding=1, groups=self.number))


class Asked(Base):
    """Python asks for the number of groups: no rule sees it, the trial does."""

    def after(self, x):
        return x if self.grouped.groups == 3 else -x


class Derived(Base):
    def __init__(self):
        super().__init__()
        parametrizations.weight_norm(self.grouped)


class Seen(Base):
    def forward(self, x):
        return self.grouped(torch.sigmoid(self.stem(x)))


FORBIDDING = [
    *(Literal, Computed, Shuffled, PerGroup, Chunked, Split, OtherNorm, OtherGroups, Joined, SharedNumber),
    *(Asked, Derived, Seen),
]


@pytest.mark.parametrize("kind", FORBIDDING)
def test_blocks_that_something_else_shows_stay(kind):
    model = randomise_(kind())
    x = kind.example()
    graph = trace(model, x)
    assert not any("grouped" in branches.rows for branches in graph.branches)
    for seed in range(2):
        plan = uneven_plan(graph, seed)
        pruned = copy.deepcopy(model)
        apply_(pruned, graph.cut(plan))
        if kind is not Derived:  # the oracle does not compute its weight
            masked = masked_original(model, masks_of(graph, plan, model))
            assert same(answers(pruned, x), answers(masked, x))
        assert pruned.grouped.groups == model.grouped.groups
