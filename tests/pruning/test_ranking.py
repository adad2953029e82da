"""Scores that are divided by what a step saves, worked out by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seg_pruning.pruning.budgets import Amounts
from seg_pruning.pruning.selection import Selection, select
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.trial import trace
from tests.pruning.selecting import random_scores


class Unequal(nn.Module):
    """Two groups of four channels; one channel of `cheap` costs 3 params, one of `dear` 19."""

    def __init__(self) -> None:
        super().__init__()
        self.cheap = nn.Conv2d(2, 4, 1, bias=False)
        self.dear = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.head = nn.Conv2d(8, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.cheap(x), self.dear(x)], 1))


@pytest.mark.parametrize(
    ("per", "left"),
    [
        # of 3 steps the lowest scores: cheap 1, cheap 2, dear 3
        ("channel", {"cheap": (2, 3), "dear": (1, 2, 3)}),
        # params: 2 + 1 = 3 of cheap, 18 + 1 = 19 of dear; mean 11. cheap 11/3 * (1, 2, 5, 6) = 3.7, 7.3, ..;
        # dear 11/19 * (3, 4, 7, 8) = 1.7, 2.3, 4.1, 4.6: the first three are dear, cheap, ... 1.7, 2.3, 3.7
        ("params", {"cheap": (1, 2, 3), "dear": (2, 3)}),
        # latency by hand: 1 ms for each channel of cheap, 0 for one of dear, counted as a thousandth
        ("latency", {"cheap": (3,)}),
    ],
)
def test_scores_are_divided_by_what_a_step_saves(per: str, left: dict[str, tuple[int, ...]]) -> None:
    graph = trace(Unequal(), torch.randn(1, 2, 4, 4))
    assert [group.name for group in graph.prunable] == ["cheap", "dear"]
    scores = {"cheap": torch.tensor([1.0, 2, 5, 6]), "dear": torch.tensor([3.0, 4, 7, 8])}
    selection = Selection(per=per, normalise="none", head_floor=0.0)  # type: ignore[arg-type]
    plan = select(graph, scores, Amounts(10**9, 10**9, 5), selection, latency=lambda kept: float(kept[0]))
    assert plan.kept == left


def test_what_is_below_zero_leaves_the_sooner_the_more_it_saves() -> None:
    graph = trace(Unequal(), torch.randn(1, 2, 4, 4))
    scores = {"cheap": torch.tensor([-2.0, 9, 9, 9]), "dear": torch.tensor([-1.0, 9, 9, 9])}
    selection = Selection(per="params", normalise="none", head_floor=0.0)
    plan = select(graph, scores, Amounts(10**9, 10**9, 7), selection)
    assert set(plan.kept) == {"dear"}  # -2 * 3 / 11 against -1 * 19 / 11


@pytest.mark.parametrize("selection", [Selection(per="latency"), Selection()])
def test_latencies_have_to_be_known_where_they_count(selection: Selection) -> None:
    graph = trace(Unequal(), torch.randn(1, 2, 4, 4))
    limit = Amounts(10**9, 10**9, 5, latency_ms=None if selection.per == "latency" else 3.0)
    with pytest.raises(PruningError, match=r"latency"):
        select(graph, random_scores(graph), limit, selection)


def test_a_limit_of_latency_is_kept() -> None:
    graph = trace(Unequal(), torch.randn(1, 2, 4, 4))
    limit = Amounts(10**9, 10**9, 8, latency_ms=4.0)

    def latency(kept: np.ndarray) -> float:
        return float(kept[0] * kept[1] / 2)

    plan = select(graph, random_scores(graph), limit, latency=latency)
    kept = [len(plan.kept.get(name, range(4))) for name in ("cheap", "dear")]
    assert latency(np.array(kept)) <= 4 < min(latency(np.array(kept) + step) for step in ([0, 1], [1, 0]))
