"""Whole blocks that leave because the scores say so: with hand-made scores, floors, rounding and prices."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor

import seg_pruning as sp
from seg_pruning.pruning.amounts import Amounts, Meter, amounts
from seg_pruning.pruning.branches import Member, played
from seg_pruning.pruning.budgets import Budget
from seg_pruning.pruning.ranking import savings
from seg_pruning.pruning.selection import Selection, check_reachable, select
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.graph import ChannelGraph
from seg_pruning.surgery.plan import Plan
from tests.networks import Grouped
from tests.pruning.selecting import large, random_scores, small, spent
from tests.surgery.oracle import answers, masked_original, masks_of, same

LOOSE = Selection(floor=0.0, head_floor=0.0)


def but_one_worthless(graph: ChannelGraph, block: int = 1) -> dict[str, Tensor]:
    """Scores of 1 and more, but for one block of each group."""
    scores = {name: score + 1 for name, score in random_scores(graph).items()}
    for name, score in scores.items():
        score[list(graph[name].rows[block])] = 0.01
    return scores


def test_a_worthless_block_leaves_before_any_other_channel() -> None:
    net, graph = small(Grouped)
    plan = select(graph, but_one_worthless(graph), Amounts(10**9, 10**9, 20), LOOSE)
    assert plan.kept == {"stem": (0, 1, 2, 3, 8, 9, 10, 11), "grouped": (*range(6), *range(12, 18))}
    pruned = copy.deepcopy(net)
    sp.apply_(pruned, graph.cut(plan))
    assert pruned.grouped.groups == 2
    expected = masked_original(net, masks_of(graph, plan, net))
    assert same(answers(pruned, Grouped.example()), answers(expected, Grouped.example()))
    more = select(graph, but_one_worthless(graph), Amounts(10**9, 10**9, 18), LOOSE)
    assert graph.widths(more).tolist() in ([6, 12, 2], [8, 10, 2])  # then a column of two


def test_blocks_that_are_alike_lose_columns() -> None:
    _, graph = small(Grouped)
    scores = {group.name: torch.zeros(group.size) for group in graph.prunable}
    for group in graph.prunable:
        for row in group.rows:
            scores[group.name][list(row)] = torch.arange(1.0, len(row) + 1)
    for channels in (24, 15, 9, 6):
        kept = graph.widths(select(graph, scores, Amounts(10**9, 10**9, channels), LOOSE))
        assert kept[-1] == 3, channels
    # where each block has one channel left there is nothing else to take
    assert graph.widths(select(graph, scores, Amounts(10**9, 10**9, 4), LOOSE)).tolist() == [2, 2, 2]


@pytest.mark.parametrize("block", range(3))
def test_what_has_left_is_not_counted_any_more(block: int) -> None:
    # Half of its channels are worth nothing, the other half more than all others: the block stays.
    values = np.full((4, 3), 1.0)
    values[:, block] = [0.0, 0.0, 1.5, 1.5]
    steps = played([Member(values, 1.0, 3, 0)], price=1.0, most=2)
    assert steps.movers[:2].tolist() == [0, 0]
    assert block not in steps.branches
    assert (np.diff(steps.keys) >= 0).all()


@pytest.mark.parametrize("floor", [0.0, 0.05, 0.2, 0.3])
@pytest.mark.parametrize("round_to", [1, 2, 8])
def test_floors_and_rounding_hold_for_what_both_leave(floor: float, round_to: int) -> None:
    graph = large("fpn")
    scores = {group.name: torch.rand(group.size) ** 8 + 1e-6 for group in graph.prunable}
    for name in {name for branches in graph.branches for name in branches.rows}:
        for row in graph[name].rows[::3]:
            scores[name][list(row)] *= 1e-3
    selection = Selection(floor=floor, round_to=round_to)
    plan = select(graph, scores, Budget(macs=0.45).limit(amounts(graph)), selection)
    assert (graph.widths(plan) < graph.whole)[len(graph.prunable) :].any()
    for name, kept in plan.kept.items():
        assert len(kept) >= floor * graph[name].size
        assert len(kept) % round_to == 0


@pytest.mark.parametrize(("floor", "channels", "least"), [(8, 12, 8), (7, 12, 8), (6, 9, 6), (5, 9, 6)])
def test_a_column_stays_where_it_is_needed_for_a_block_that_left(
    floor: int, channels: int, least: int
) -> None:
    _, graph = small(Grouped)
    selection = Selection(floor={"stem": floor, "*": 0.0}, head_floor=0.0)
    plan = select(graph, but_one_worthless(graph), Amounts(10**9, 10**9, channels), selection)
    assert len(plan.kept["stem"]) == least
    assert graph.widths(plan)[-1] == 2


def test_the_smallest_that_is_said_to_be_reachable_is_reached() -> None:
    _, graph = small(Grouped)
    smallest = amounts(graph, np.array([1.0, 1.0, 1.0]))
    assert spent(graph, select(graph, random_scores(graph), smallest, LOOSE)) == smallest
    with pytest.raises(PruningError, match=f"smallest reachable is {smallest.params} params"):
        check_reachable(graph, Amounts(smallest.params - 1, 10**9, 10**9), LOOSE)


@pytest.mark.parametrize(
    "selection",
    [
        Selection(protect=("grouped",), floor=0.0, head_floor=0.0),
        Selection(scope="local", floor=0.0),
        Selection(floor={"stem": 1.0, "*": 0.0}, head_floor=0.0),
        Selection(round_to=3, floor=0.0, head_floor=0.0),
    ],
)
def test_blocks_stay_where_their_layer_does(selection: Selection) -> None:
    _, graph = small(Grouped)
    kept = graph.widths(select(graph, but_one_worthless(graph), Amounts(10**9, 10**9, 24), selection))
    assert kept[-1] == 3
    assert kept.sum() < 12 + 18 + 3


def test_a_ceiling_takes_columns() -> None:
    _, graph = small(Grouped)
    selection = Selection(ceiling={"grouped": 9}, floor=0.0, head_floor=0.0)
    plan = select(graph, but_one_worthless(graph), amounts(graph), selection)
    assert graph.widths(plan).tolist() == [12, 9, 3]


def test_a_block_is_priced_by_what_it_saves() -> None:
    _, graph = small(Grouped)
    # params: stem 12 * 28, grouped 18 * (4 * 9 + 1), head 2 * (18 * 9 + 1)
    column_of_stem = 3 * 28 + 18 * 9
    column_of_grouped = 3 * 37 + 3 * 2 * 9
    block = 4 * 28 + 6 * 37 + 6 * 2 * 9  # of 4 + 6 channels; a column has 3
    mean = (column_of_stem + column_of_grouped) / 2
    expected = [column_of_stem / mean, column_of_grouped / mean, block * 3 / 10 / mean]
    assert [group.name for group in graph.prunable] == ["stem", "grouped"]
    assert savings(Meter(graph), "params") == pytest.approx(expected)
    assert savings(Meter(graph), "channel").tolist() == [1, 1, 1]


@pytest.mark.parametrize("fraction", [0.5, 0.3, 0.1])
@pytest.mark.parametrize("per", ["channel", "macs"])
def test_a_budget_is_hit_and_foretold_with_whole_blocks_gone(fraction: float, per: str) -> None:
    graph = large("fpn")
    scores = random_scores(graph)
    for branches in graph.branches:
        for name, rows in branches.rows.items():
            scores[name][[i for row in rows[::2] for i in graph[name].rows[row]]] *= 0.05
    limit = Budget(macs=fraction).limit(amounts(graph))
    plan = select(graph, scores, limit, Selection(per=per))  # type: ignore[arg-type]
    got = spent(graph, plan)
    assert 0.99 * limit.macs <= got.macs <= limit.macs
    assert (graph.widths(plan) < graph.whole)[len(graph.prunable) :].any()
    masks = graph.cut(plan).masks
    left = {name: math.prod(shape) for name, shape in graph.trace.shapes.items()}
    left |= {name: int(mask.sum()) for name, mask in masks.items()}
    assert got.params == sum(left[name] for name in graph.trace.parameters)


def test_a_plan_names_what_is_kept_of_all_layers_of_a_block() -> None:
    _, graph = small(Grouped)
    plan = select(graph, but_one_worthless(graph, 0), Amounts(10**9, 10**9, 20), LOOSE)
    assert Plan.from_json(plan.to_json()) == plan
    assert (plan.sizes, plan.kept["stem"]) == ({"stem": 12, "grouped": 18}, tuple(range(4, 12)))
