"""Blocks that leave as a whole: where they may, and what is left then."""

import copy

import pytest
import torch
from torch import nn

from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.note import structure_of
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import random_plan, trace
from tests.networks import Net, Paths, conv
from tests.surgery.oracle import answers, masked_original, masks_of, randomise_, same, uneven_plan


class Base(Net):
    """A convolution in three groups; what happens to its input and its output differs below."""

    def __init__(self):
        super().__init__()
        self.stem, self.grouped, self.head = conv(3, 12), conv(12, 18, groups=3), conv(18, 2)

    def before(self, x):
        return x

    def after(self, x):
        return x

    def forward(self, x):
        return self.head(torch.sigmoid(self.after(self.grouped(self.before(torch.sigmoid(self.stem(x)))))))


class Two(Base):
    """Two paths that are added: both convolutions lose the same groups."""

    def __init__(self):
        super().__init__()
        self.other = conv(12, 18, groups=3)

    def forward(self, x):
        x = torch.sigmoid(self.stem(x))
        return self.head(torch.sigmoid(self.grouped(x) + self.other(x)))


class Gated(Base):
    """Squeeze and excitation, and a depthwise convolution: each channel by itself."""

    def __init__(self):
        super().__init__()
        self.squeeze, self.excite, self.deep = conv(18, 5, 1), conv(5, 18, 1), conv(12, 12, groups=12)

    def before(self, x):
        return self.deep(x)

    def after(self, x):
        return x * torch.sigmoid(self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()))


class Stream(Base):
    """The groups of a norm on a residual stream."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(3, 12) for _ in range(2))
        self.inner, self.head = conv(12, 12), conv(12, 2)

    def forward(self, x):
        x = self.norms[0](self.stem(x))
        return self.head(x + torch.sigmoid(self.norms[1](self.inner(torch.sigmoid(x)))))


BOTH = {"stem": 3, "grouped": 3}


@pytest.mark.parametrize(
    ("kind", "expected"), [(Base, BOTH), (Two, BOTH), (Gated, BOTH), (Stream, {"stem": 3, "inner": 3})]
)
def test_blocks_that_only_their_number_shows_may_leave(kind, expected):
    model = randomise_(kind())
    x = kind.example()
    graph = trace(model, x)
    offered = {name: len(rows) for branches in graph.branches for name, rows in branches.rows.items()}
    assert offered == {name: n for name, n in expected.items() if name in graph.by_name}
    for seed in range(4):
        plan = uneven_plan(graph, seed)
        pruned = copy.deepcopy(model)
        apply_(pruned, graph.cut(plan))
        assert same(answers(pruned, x), answers(masked_original(model, masks_of(graph, plan, model)), x))


def test_what_a_group_reads_and_makes_leaves_with_it():
    torch.manual_seed(0)
    dense = Base().eval()
    graph = trace(dense, dense.example())
    # of three groups of 4 -> 6 channels the second leaves; of the others two read channels and one made
    plan = Plan(
        {"stem": (0, 3, 9, 10), "grouped": (0, 1, 2, 3, 5, 12, 13, 15, 16, 17)}, {"stem": 12, "grouped": 18}
    )
    model = copy.deepcopy(dense)
    apply_(model, graph.cut(plan))
    assert (model.grouped.groups, model.grouped.in_channels, model.grouped.out_channels) == (2, 4, 10)
    assert (model.stem.out_channels, model.head.in_channels) == (4, 10)
    first = dense.grouped.weight[[0, 1, 2, 3, 5]][:, [0, 3]]
    last = dense.grouped.weight[[12, 13, 15, 16, 17]][:, [1, 2]]
    assert torch.equal(model.grouped.weight, torch.cat([first, last]))
    assert torch.equal(model.grouped.bias, dense.grouped.bias[list(plan.kept["grouped"])])


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"stem": (0, 1, 8, 9)}, r"other blocks of stem than of grouped: \[1\] and \[\]"),
        ({"stem": (0, 8), "grouped": (0, 6)}, r"\[1\] and \[2\]; they have to leave together"),
        ({"stem": (0, 1, 8)}, r"keeps \[0, 1, 2\] channels of the 3 blocks of 'stem'; .* or none"),
    ],
)
def test_blocks_of_one_layer_do_not_leave_alone(kept, message):
    model = Base()
    graph = trace(model, model.example())
    with pytest.raises(PruningError, match=message):
        graph.cut(Plan(kept, {name: graph[name].size for name in kept}))


class Single(Net):
    """Each group of a transposed convolution makes one channel; one that reads one is not depthwise yet."""

    def __init__(self):
        super().__init__()
        self.stem, self.up = conv(3, 12), nn.ConvTranspose2d(12, 4, 2, groups=4)
        self.wide, self.head = conv(4, 9), conv(9, 2)

    def forward(self, x):
        return self.head(torch.sigmoid(self.wide(torch.sigmoid(self.up(torch.sigmoid(self.stem(x)))))))


def one_of_each(graph):
    """Of all blocks but the last one channel each."""
    kept = {g.name: tuple(row[-1] for row in g.rows[:-1]) for g in graph.prunable if g.step > 1}
    return Plan(kept, {name: graph[name].size for name in kept})


PLANS = [lambda graph, seed=seed: random_plan(graph, seed=seed) for seed in range(4)]


@pytest.mark.parametrize(("kind", "plan"), [*((Paths, plan) for plan in PLANS), (Single, one_of_each)])
def test_two_cuts_equal_the_cut_of_the_union(kind, plan):
    dense = randomise_(kind())
    x = dense.example()
    first = plan(trace(dense, x))
    twice = copy.deepcopy(dense)
    apply_(twice, trace(dense, x).cut(first))
    graph = trace(twice, x)
    second = random_plan(graph, seed=1)
    apply_(twice, graph.cut(second))
    once = copy.deepcopy(dense)
    union = first.then(second)
    apply_(once, trace(dense, x).cut(union))
    assert {n: t.tolist() for n, t in twice.state_dict().items()} == {
        n: t.tolist() for n, t in once.state_dict().items()
    }
    assert structure_of(twice).plans == structure_of(once).plans == (union,)
    assert structure_of(twice).sizes == structure_of(once).sizes


def test_blocks_of_one_channel_leave_until_one_is_left():
    model = randomise_(Paths())
    x = model.example()
    graph = trace(model, x)
    kept = {group.name: tuple(row[0] for row in group.rows) for group in graph.prunable}
    apply_(model, graph.cut(Plan(kept, {name: graph[name].size for name in kept})))
    for left in (2, 1):
        graph = trace(model, x)
        assert {name for branches in graph.branches for name in branches.rows} == set(kept)
        plan = Plan({name: tuple(range(left)) for name in kept}, dict.fromkeys(kept, left + 1))
        masked = masked_original(model, masks_of(graph, plan, model))
        apply_(model, graph.cut(plan))
        assert same(answers(model, x), answers(masked, x))
        assert (model.paths.groups, model.up.groups, model.norm.num_groups) == (left,) * 3
    assert trace(model, x).branches == ()
