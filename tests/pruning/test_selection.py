"""Selections against an order that is merged by hand and amounts that are counted on pruned copies."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seg_pruning.profiling import cost
from seg_pruning.pruning.budgets import Amounts, Budget, amounts
from seg_pruning.pruning.score import score
from seg_pruning.pruning.selection import Selection, select
from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.graph import ChannelGraph
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace
from tests.networks import Chain, Concat, Grouped, Residual
from tests.pruning.by_hand import Step, by_hand
from tests.pruning.selecting import kept_of, large, one_step_more, random_scores, small, spent


class Ranked(Grouped):
    """Grouped convolutions one after another, and a norm in as many groups: all lose them together."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.more = nn.GroupNorm(3, 18), nn.Conv2d(18, 24, 3, padding=1, groups=3)
        self.head = nn.Conv2d(24, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.sigmoid(self.norm(self.grouped(torch.sigmoid(self.stem(x)))))
        return self.head(torch.sigmoid(self.more(x)))


def whole_plan(graph: ChannelGraph, gone: dict[str, list[int]]) -> Plan:
    kept = {
        group.name: tuple(i for i in range(group.size) if i not in gone.get(group.name, []))
        for group in graph.prunable
    }
    return Plan(kept, {group.name: group.size for group in graph.prunable})


def counted(net: nn.Module, graph: ChannelGraph, plan: Plan, example: object) -> Amounts:
    """Amounts of a copy that is really pruned."""
    pruned = copy.deepcopy(net)
    apply_(pruned, graph.cut(plan))
    found = cost(pruned, example)  # type: ignore[arg-type]
    return Amounts(found.params, found.macs, sum(len(kept) for kept in plan.kept.values()))


@pytest.mark.parametrize("fraction", [0.95, 0.7, 0.4, 0.25])
@pytest.mark.parametrize("amount", ["params", "macs", "channels"])
@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("kind", [Chain, Residual, Concat, Grouped, Ranked])
def test_the_plan_is_the_first_of_all_prefixes_that_fits_less_what_can_come_back(
    kind: type, scope: str, amount: str, fraction: float
) -> None:
    net, graph = small(kind)
    scores = random_scores(graph)
    limit = Budget.of({amount: fraction}).limit(counted(net, graph, whole_plan(graph, {}), kind.example()))

    def plan_without(steps: list[Step]) -> Plan:
        gone: dict[str, list[int]] = {}
        for _, channels in steps:
            for name, its_channels in channels.items():
                gone.setdefault(name, []).extend(its_channels)
        return whole_plan(graph, gone)

    def fits(steps: list[Step]) -> bool:
        return counted(net, graph, plan_without(steps), kind.example()).within(limit)

    order = by_hand(graph, scores, scope)
    taken = next(order[:n] for n in range(len(order) + 1) if fits(order[:n]))
    closed: set[str] = set()
    for step in reversed(taken):
        if step[0] in closed:
            continue
        less = [other for other in taken if other is not step]
        taken, fitted = (less, True) if fits(less) else (taken, False)
        if not fitted or scope == "local":
            closed.add(step[0])
    wanted = plan_without(taken)
    plan = select(graph, scores, limit, Selection(scope=scope, floor=0.0, head_floor=0.0))  # type: ignore[arg-type]
    assert kept_of(graph, plan) == {name: set(kept) for name, kept in wanted.kept.items()}
    assert plan.sizes == {name: graph[name].size for name in plan.kept}


@pytest.mark.parametrize("fraction", [0.5, 0.3, 0.1])
@pytest.mark.parametrize("amount", ["params", "macs", "channels"])
@pytest.mark.parametrize("name", ["unet", "fpn"])
def test_a_budget_is_hit_within_one_percent_or_the_next_step(name: str, amount: str, fraction: float) -> None:
    graph = large(name)
    limit = Budget.of({amount: fraction}).limit(amounts(graph))
    plan = select(graph, random_scores(graph), limit)
    got, aim = getattr(spent(graph, plan), amount), getattr(limit, amount)
    assert got <= aim
    if got < 0.99 * aim:  # one more channel of any group that lost some would have been too much
        assert all(getattr(amounts(graph, wider), amount) > aim for wider in one_step_more(graph, plan))


def test_several_budgets_hold_together_and_one_is_met() -> None:
    graph = large("unet")
    limit = Budget(params=0.4, macs=0.3, channels=0.6).limit(amounts(graph))
    got = spent(graph, select(graph, random_scores(graph), limit))
    assert got.within(limit)
    ratios = [getattr(got, n) / getattr(limit, n) for n in ("params", "macs", "channels")]
    assert max(ratios) > 0.99


@pytest.mark.parametrize("fraction", [0.8, 0.5, 0.3])
@pytest.mark.parametrize("name", ["unet", "fpn"])
def test_local_takes_the_same_fraction_of_each_group_to_two_steps(name: str, fraction: float) -> None:
    graph = large(name)
    limit = Budget(macs=fraction).limit(amounts(graph))
    plan = select(graph, random_scores(graph), limit, Selection(scope="local", floor=0.0))
    kept = kept_of(graph, plan)
    removed = {g.name: 1 - len(kept[g.name]) / g.size for g in graph.prunable}
    most = max(removed.values())
    for group in graph.prunable:
        assert most - 2 * group.step / group.size - 1e-9 <= removed[group.name] <= most


class Spare(Chain):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(100, 100)


def test_what_is_dropped_counts_before_any_channel_leaves() -> None:
    graph = trace(Spare(), Chain.example())
    limit = Budget(params=0.5).limit(amounts(graph))
    plan = select(graph, random_scores(graph), limit, dropped=("spare",))
    assert (dict(plan.kept), plan.dropped) == ({}, ("spare",))
    with pytest.raises(PruningError, match=r"10,\d\d\d params \(9\d\.\d % of the present"):
        select(graph, random_scores(graph), limit)


@settings(max_examples=60)
@given(
    ties=st.integers(1, 4),
    seed=st.integers(0, 2**16),
    fractions=st.tuples(st.floats(0.5, 1.0), st.floats(0.5, 1.0)),
    scope=st.sampled_from(["global", "local"]),
    round_to=st.sampled_from([1, 2, 3]),
    kind=st.sampled_from([Residual, Concat, Grouped]),
)
def test_ties_are_broken_the_same_way_and_nothing_more_would_fit(
    ties: int, seed: int, fractions: tuple[float, float], scope: str, round_to: int, kind: type
) -> None:
    _, graph = small(kind)
    rng = np.random.default_rng(seed)
    scores = {g.name: torch.from_numpy(rng.integers(-ties, ties, g.size)).float() for g in graph.prunable}
    selection = Selection(scope=scope, round_to=round_to, floor=0.0)  # type: ignore[arg-type]
    plans = [
        select(graph, order, Budget(macs=f).limit(amounts(graph)), selection)
        for f, order in itertools.product(sorted(fractions), (scores, dict(reversed(scores.items()))))
    ]
    assert plans[0] == plans[1]
    assert plans[2] == plans[3]
    for f, plan in zip(sorted(fractions), plans[::2], strict=True):
        assert spent(graph, plan).macs <= f * amounts(graph).macs + 1e-6
        for group, kept in plan.kept.items():  # what is whole is not named
            assert len(kept) < graph[group].size
            assert len(kept) % round_to == 0
            assert scope == "global" or len(kept) % graph[group].step == 0  # no block leaves as a whole
        for wider in one_step_more(graph, plan, round_to) if scope == "global" else ():
            assert amounts(graph, wider).macs > math.floor(round(f * amounts(graph).macs, 6))


@pytest.mark.parametrize(
    ("normalise", "fewest"),
    # per group: mean 1 and 100, norm about 2 (four channels at most 1) and 100 * sqrt(size)
    [("none", "a"), ("mean", "b"), ("l2", "b")],
)
def test_normalisation_makes_groups_comparable(normalise: str, fewest: str) -> None:
    _, graph = small(Concat)  # a: 7 channels, b: 10
    low, high = torch.linspace(0.9, 1.1, 7), torch.linspace(1, 199, 10)
    limit = Amounts(10**9, 10**9, 14)
    plan = select(graph, {"a": low, "b": high}, limit, Selection(normalise=normalise))  # type: ignore[arg-type]
    assert set(plan.kept) == {fewest}


def test_scores_that_are_all_zero_are_ties() -> None:
    _, graph = small(Chain)
    plan = select(graph, {"stem": torch.zeros(10)}, Amounts(10**9, 10**9, 6))
    assert plan.kept == {"stem": (4, 5, 6, 7, 8, 9)}


def test_scores_of_a_criterion_are_what_is_selected_by() -> None:
    net, graph = small(Chain)
    weights = dict(net.named_parameters())
    with torch.no_grad():
        weights["stem.weight"].mul_(torch.arange(10, 0, -1).reshape(10, 1, 1, 1) ** 3)
    plan = select(graph, score(graph, net, "l2"), Amounts(10**9, 10**9, 4))
    assert plan.kept == {"stem": (0, 1, 2, 3)}
