"""Floors and ceilings of single groups."""

import pytest
import torch

from seg_pruning.pruning.budgets import Budget, amounts
from seg_pruning.pruning.selection import Selection, check_reachable, select
from seg_pruning.surgery.errors import PruningError
from tests.networks import Chain
from tests.pruning.selecting import large, random_scores, small


@pytest.mark.parametrize(
    ("floor", "least"),
    [
        ({"encoder.layer3.*": 0.5}, 128),
        ({"encoder.layer3.0.conv1": 200, "encoder.*": 64, "encoder.layer3.*": 0.1}, 200),  # the largest
        ({"encoder.layer3.0.bn1": 1.0}, 256),
        ({"decoder.*": 0.5}, 13),  # 0.05 of 256 where no pattern matches
    ],
)
def test_a_named_group_keeps_its_floor(floor: dict[str, float], least: int) -> None:
    graph = large("unet")
    name = "encoder.layer3.0.conv1"
    scores = random_scores(graph) | {name: torch.arange(256) * 1e-9}
    # only few of the others are higher once its scores are compared as they are
    plan = select(
        graph, scores, Budget(channels=0.6).limit(amounts(graph)), Selection(floor=floor, normalise="none")
    )
    assert len(plan.kept.get(name, range(256))) == least


@pytest.mark.parametrize(
    ("ceiling", "round_to", "most"),
    [({"encoder.layer3.*": 0.5}, 1, 128), ({"encoder.*": 100, "encoder.layer3.*": 0.5}, 8, 96)],
)
def test_a_ceiling_takes_channels_even_where_the_budget_has_room(
    ceiling: dict[str, float], round_to: int, most: int
) -> None:
    graph = large("unet")
    selection = Selection(ceiling=ceiling, round_to=round_to)
    plan = select(graph, random_scores(graph), amounts(graph), selection)
    assert len(plan.kept["encoder.layer3.0.conv1"]) == most
    assert not any(name.startswith("decoder") for name in plan.kept)
    scores = random_scores(graph)["encoder.layer3.0.conv1"]
    assert plan.kept["encoder.layer3.0.conv1"] == tuple(sorted(scores.argsort()[-most:].tolist()))
    tight = select(graph, random_scores(graph), Budget(params=0.3).limit(amounts(graph)), selection)
    assert all(len(tight.kept[name]) <= len(kept) for name, kept in plan.kept.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"floor": {"stem": 8}, "ceiling": {"stem": 0.5}},
            "keeps at least 8 by its floor.* at most 5 by its",
        ),
        ({"protect": ("stem",), "ceiling": {"stem": 9}}, "keeps at least 10 .* at most 9 by its ceiling"),
        ({"round_to": 4, "ceiling": {"stem": 3}}, "keeps at least 4 .*round_to=4, and at most 3 by its"),
        ({"floor": {"sten": 8}}, "floor names 'sten'.*nearest: stem"),
        ({"ceiling": {"sten": 8}}, "ceiling names 'sten'.*nearest: stem"),
    ],
)
def test_bounds_that_contradict_each_other_are_refused(options: dict[str, object], message: str) -> None:
    _, graph = small(Chain)
    with pytest.raises(PruningError, match=message):
        check_reachable(graph, amounts(graph), Selection(**options))  # type: ignore[arg-type]
