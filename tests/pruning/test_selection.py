"""Selections against an order that is merged by hand and amounts that are counted on pruned copies."""

import copy
import itertools
from functools import cache

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from seg_pruning.profiling import cost
from seg_pruning.pruning.budgets import Amounts, Budget, amounts
from seg_pruning.pruning.criteria import Random
from seg_pruning.pruning.score import score
from seg_pruning.pruning.selection import Selection, check_reachable, select
from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.graph import ChannelGraph
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace
from tests.networks import Chain, Concat, Grouped, Residual

Scores = dict[str, Tensor]
NO_FLOOR = Selection(floor=0.0)
SMP = {
    "unet": lambda: smp.Unet("resnet18", encoder_weights=None),
    "fpn": lambda: smp.FPN("resnext50_32x4d", encoder_weights=None),
}


@cache
def small(kind: type) -> tuple[nn.Module, ChannelGraph]:
    net = kind()
    return net, trace(net, kind.example())


@cache
def large(name: str) -> ChannelGraph:
    return trace(SMP[name](), torch.randn(1, 3, 64, 64))


def random_scores(graph: ChannelGraph, seed: int = 0) -> Scores:
    return {group.name: Random(seed)(group, {}, {}) + 0.1 for group in graph.prunable}


def kept_of(graph: ChannelGraph, plan: Plan) -> dict[str, set[int]]:
    return {group.name: set(plan.kept.get(group.name, range(group.size))) for group in graph.prunable}


def spent(graph: ChannelGraph, plan: Plan) -> Amounts:
    return amounts(graph, np.array([len(kept) for kept in kept_of(graph, plan).values()], dtype=np.float64))


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


def by_hand(graph: ChannelGraph, scores: Scores, scope: str) -> list[tuple[str, list[int]]]:
    """The order in which channels leave until each row holds one, with plain lists."""
    steps = []
    for number, group in enumerate(graph.prunable):
        values = scores[group.name].tolist()
        rows = [sorted(row, key=lambda i: (values[i], i)) for row in group.rows]
        columns = list(zip(*rows, strict=True))
        means = [sum(values[i] for i in column) / len(column) for column in columns]
        scale = sum(map(abs, means)) / len(means)
        for at, column in enumerate(columns[:-1]):
            key = means[at] / scale if scope == "global" else (at + 1) / len(columns)
            steps.append((key, at, number, group.name, list(column)))
    return [(name, column) for *_, name, column in sorted(steps)]


@pytest.mark.parametrize("fraction", [0.95, 0.7, 0.4, 0.25])
@pytest.mark.parametrize("amount", ["params", "macs", "channels"])
@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("kind", [Chain, Residual, Concat, Grouped])
def test_the_plan_is_the_first_of_all_prefixes_that_fits(
    kind: type, scope: str, amount: str, fraction: float
) -> None:
    net, graph = small(kind)
    scores = random_scores(graph)
    limit = Budget.of({amount: fraction}).limit(counted(net, graph, whole_plan(graph, {}), kind.example()))
    gone: dict[str, list[int]] = {}
    for name, channels in [("", []), *by_hand(graph, scores, scope)]:
        gone.setdefault(name, []).extend(channels)
        wanted = whole_plan(graph, gone)
        if counted(net, graph, wanted, kind.example()).within(limit):
            break
    else:
        pytest.fail("no prefix fits: the case tests nothing")
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
        kept = kept_of(graph, plan)
        for group in graph.prunable:
            if len(kept[group.name]) < group.size:
                widths = [len(kept[g.name]) + (g is group) * g.step for g in graph.prunable]
                assert getattr(amounts(graph, np.array(widths, dtype=np.float64)), amount) > aim


def test_several_budgets_hold_together_and_one_is_met() -> None:
    graph = large("unet")
    limit = Budget(params=0.4, macs=0.3, channels=0.6).limit(amounts(graph))
    got = spent(graph, select(graph, random_scores(graph), limit))
    assert got.within(limit)
    ratios = [getattr(got, n) / getattr(limit, n) for n in ("params", "macs", "channels")]
    assert max(ratios) > 0.99


@pytest.mark.parametrize("fraction", [0.8, 0.5, 0.3])
@pytest.mark.parametrize("name", ["unet", "fpn"])
def test_local_takes_the_same_fraction_of_each_group(name: str, fraction: float) -> None:
    graph = large(name)
    limit = Budget(macs=fraction).limit(amounts(graph))
    plan = select(graph, random_scores(graph), limit, Selection(scope="local", floor=0.0))
    kept = kept_of(graph, plan)
    removed = {g.name: 1 - len(kept[g.name]) / g.size for g in graph.prunable}
    most = max(removed.values())
    for group in graph.prunable:
        assert most - group.step / group.size - 1e-9 <= removed[group.name] <= most


@pytest.mark.parametrize("round_to", [2, 8, 16])
@pytest.mark.parametrize("name", ["unet", "fpn"])
def test_rounded_widths_are_multiples_or_whole(name: str, round_to: int) -> None:
    graph = large(name)
    limit = Budget(params=0.4).limit(amounts(graph))
    plan = select(graph, random_scores(graph), limit, Selection(round_to=round_to))
    assert spent(graph, plan).within(limit)
    assert plan.kept
    for group, kept in plan.kept.items():
        assert len(kept) % round_to == 0, group
        for row in graph[group].rows:
            assert len(set(row) & set(kept)) * graph[group].step == len(kept)


def test_rounding_by_what_does_not_divide_the_blocks_fits_both() -> None:
    _, graph = small(Grouped)  # 12 and 18 channels in 3 blocks
    plan = select(
        graph, random_scores(graph), Budget(channels=0.5).limit(amounts(graph)), Selection(round_to=2)
    )
    assert {name: len(kept) for name, kept in plan.kept.items()} == {"stem": 6, "grouped": 6}


@pytest.mark.parametrize(("floor", "least"), [(0.0, 1), (0.05, 1), (0.3, 3), (0.31, 4), (0.99, 10)])
def test_a_floor_always_stays(floor: float, least: int) -> None:
    _, graph = small(Chain)  # one group of 10
    scores, selection = random_scores(graph), Selection(floor=floor)
    smallest = amounts(graph, np.array([least], dtype=np.float64))
    plan = select(graph, scores, smallest, selection)
    assert len(plan.kept.get("stem", range(10))) == least
    below = Amounts(smallest.params, smallest.macs, smallest.channels - 1)
    with pytest.raises(PruningError, match=f"the smallest reachable is {least} channels "):
        select(graph, scores, below, selection)


def test_each_block_keeps_a_channel_without_a_floor() -> None:
    _, graph = small(Grouped)
    plan = select(graph, random_scores(graph), Amounts(10**9, 10**9, 6), NO_FLOOR)
    assert [len(kept) for kept in plan.kept.values()] == [3, 3]


def test_what_is_protected_keeps_its_width_and_needs_no_scores() -> None:
    graph = large("unet")
    selection = Selection(protect=("encoder.layer1.*", "decoder.blocks.2.conv1.1"))
    scores = {name: s for name, s in random_scores(graph).items() if not name.startswith("encoder.layer1")}
    plan = select(graph, scores, Budget(params=0.3).limit(amounts(graph)), selection)
    carried = {
        g.name for g in graph.prunable if any(n.startswith("encoder.layer1.0.conv1") for n in g.layers)
    }
    assert "encoder.layer1.0.conv1" in carried
    assert not {"encoder.layer1.0.conv1", "encoder.layer1.1.conv1", "decoder.blocks.2.conv1.0"} & set(
        plan.kept
    )
    free = select(graph, random_scores(graph), Budget(params=0.3).limit(amounts(graph)))
    assert {"encoder.layer1.0.conv1", "decoder.blocks.2.conv1.0"} <= set(free.kept)


def test_an_unknown_protected_name_is_refused_even_if_nothing_has_to_leave() -> None:
    _, graph = small(Chain)
    with pytest.raises(PruningError, match=r"protect names 'sten', .* nearest: stem"):
        select(graph, random_scores(graph), amounts(graph), Selection(protect=("sten",)))


def test_what_cannot_be_reached_says_how_far_one_can_go_and_that_far_is_reached() -> None:
    graph = large("unet")
    scores, selection = random_scores(graph), Selection(floor=0.5, round_to=8)
    with pytest.raises(PruningError) as caught:
        select(graph, scores, Budget(params=0.01, macs=0.9).limit(amounts(graph)), selection)
    text = str(caught.value)
    assert text.startswith("the budget cannot be reached: the smallest reachable is ")
    assert "Keep more, lower floor=0.5 or round_to=8, or protect less; " in text
    assert "macs" not in text
    least = int(text.split("reachable is ")[1].split(" params")[0].replace(",", ""))
    limit = Amounts(least, 10**15, 10**15)
    assert spent(graph, select(graph, scores, limit, selection)).params == least
    check_reachable(graph, limit, selection)
    with pytest.raises(PruningError, match="cannot be reached"):
        check_reachable(graph, Amounts(least - 1, 10**15, 10**15), selection)


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
def test_a_smaller_budget_keeps_a_subset_and_ties_are_broken_the_same_way(
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
    less, more = kept_of(graph, plans[0]), kept_of(graph, plans[2])
    assert all(less[name] <= more[name] for name in less)
    for f, plan in zip(sorted(fractions), plans[::2], strict=True):
        assert spent(graph, plan).macs <= f * amounts(graph).macs + 1e-6
        for group, kept in plan.kept.items():  # what is whole is not named
            assert len(kept) < graph[group].size
            assert len(kept) % round_to == len(kept) % graph[group].step == 0


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


def test_no_group_that_can_be_pruned_gives_an_empty_plan_or_an_error() -> None:
    net = nn.Conv2d(3, 2, 1)
    graph = trace(net, torch.randn(1, 3, 4, 4))
    assert select(graph, {}, amounts(graph)) == Plan({}, {})
    with pytest.raises(PruningError, match="cannot be reached"):
        select(graph, {}, Budget(params=0.5).limit(amounts(graph)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "there is no score for group 'stem'"),
        (torch.zeros(9), r"of shape \(10,\), one for each channel, but got \(9,\)"),
        (torch.zeros(10, 1), r"but got \(10, 1\)"),
        (
            torch.tensor([0.0] * 8 + [float("nan"), float("inf")]),
            "2 of the 10 scores of group 'stem' are not finite",
        ),
    ],
)
def test_scores_that_say_nothing_are_refused(value: Tensor | None, message: str) -> None:
    _, graph = small(Chain)
    with pytest.raises(PruningError, match=message):
        select(graph, {} if value is None else {"stem": value}, Budget(channels=0.5).limit(amounts(graph)))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("scope", "layer"),
        ("normalise", "max"),
        ("round_to", 0),
        ("round_to", 8.0),
        ("round_to", True),
        ("floor", -0.1),
        ("floor", 1.0),
        ("floor", float("nan")),
        ("protect", "head"),
        ("protect", ("",)),
    ],
)
def test_illegal_options_are_refused(argument: str, value: object) -> None:
    with pytest.raises(PruningError, match=f"expected {argument} to be "):
        Selection(**{argument: value})  # type: ignore[arg-type]


def test_scores_of_a_criterion_are_what_is_selected_by() -> None:
    net, graph = small(Chain)
    weights = dict(net.named_parameters())
    with torch.no_grad():
        weights["stem.weight"].mul_(torch.arange(10, 0, -1).reshape(10, 1, 1, 1) ** 3)
    plan = select(graph, score(graph, net, "l2"), Amounts(10**9, 10**9, 4))
    assert plan.kept == {"stem": (0, 1, 2, 3)}
