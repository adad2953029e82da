import pytest

from seg_pruning.callbacks.floor import HALVINGS, Floor, Search, halfway, split
from seg_pruning.pruning.budgets import Amounts


def limit(params: int) -> Amounts:
    return Amounts(params, 1000, 100)


@pytest.mark.parametrize(
    ("now", "kept"), [(0.85, True), (0.84, True), (0.8399, False), (float("nan"), False), (0.9, True)]
)
def test_a_drop_is_from_the_dense_value(now, kept):
    broken = Floor(max_drop={"dice": 0.01}).broken({"dice": now}, {"dice": 0.85})
    assert (not broken) == kept


def test_every_promise_counts():
    floor = Floor(min={"iou": 0.7}, max_drop={"dice": 0.1})
    assert floor.names == ("iou", "dice")
    now = {"iou": 0.6, "dice": 0.5}
    assert len(floor.broken(now, {"iou": 0.9, "dice": 0.9})) == 2
    assert floor.broken({"iou": 0.7, "dice": 0.8}, {"iou": 0.9, "dice": 0.9}) == ()


def test_a_budget_without_a_floor_has_none():
    assert split({"macs": 0.3}) == ({"macs": 0.3}, None)


@pytest.mark.parametrize("smallest", [995, 700, 555, 501, 431, 300, 100])
def test_the_search_ends_near_the_smallest_that_keeps_the_promise(smallest):
    """An oracle that keeps the promise down to `smallest` params; planned are 800, 600, 400, 200."""
    planned = [800, 600, 400, 200]
    search, tried = Search(limit(1000)), []
    while not search.over:
        search = search.tried(limit(planned[search.planned]))
        tried.append(search.trying.params)
        search = search.judged(kept=search.trying.params >= smallest, of=4)
        assert Search.from_dict(search.to_dict()) == search
    reached = [params for params in [1000, *planned] if params >= smallest]
    assert smallest <= search.good.params
    if smallest <= 200:
        assert tried == planned
    else:
        assert len(tried) == len(reached) + HALVINGS
        assert search.good.params - smallest <= 200 / 2**HALVINGS


def test_halfway_of_amounts():
    assert halfway(Amounts(10, 7, 4), Amounts(5, 7, 1)) == Amounts(7, 7, 2)
