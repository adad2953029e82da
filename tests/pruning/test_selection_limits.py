"""What no selection may take: rounded widths, floors, what is protected; and what is refused."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seg_pruning.pruning.budgets import Amounts, Budget, amounts
from seg_pruning.pruning.selection import Selection, check_reachable, select
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace
from tests.networks import Chain, Grouped
from tests.pruning.selecting import large, random_scores, small, spent

NO_FLOOR = Selection(floor=0.0)


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
        assert len({len(set(row) & set(kept)) for row in graph[group].rows} - {0}) == 1


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
    assert "macs" not in text.split("nearest feasible")[0]
    assert f"'macs': {int(0.9 * amounts(graph).macs)}}}" in text
    least = int(text.split("reachable is ")[1].split(" params")[0].replace(",", ""))
    limit = Amounts(least, 10**15, 10**15)
    assert spent(graph, select(graph, scores, limit, selection)).params == least
    check_reachable(graph, limit, selection)
    with pytest.raises(PruningError, match="cannot be reached"):
        check_reachable(graph, Amounts(least - 1, 10**15, 10**15), selection)


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
        ("round_to", "8"),
        ("per", "second"),
        ("floor", {"stem": 1.5}),
        ("floor", {"stem": -1}),
        ("floor", {"stem": True}),
        ("floor", {"": 0.5}),
        ("ceiling", 0.5),
        ("ceiling", {"stem": "half"}),
        ("head_floor", True),
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
