import copy
import math

import numpy as np
import pytest
from torch import nn

from seg_pruning.pruning.budgets import Amounts, Budget, amounts, shortfall
from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.trial import random_plan, trace
from tests.networks import NETWORKS, Chain
from tests.pruning.small import counted

DENSE = Amounts(params=1000, macs=100, channels=10)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "name",
    [
        "Chain",
        "Concat",
        "Depthwise",
        "Grouped",
        "LayerNorm",
        "PixelShuffle",
        "SharedModule",
        "SqueezeExcite",
        "TiedWeights",
        "Transposed",
    ],
)
def test_amounts_foretell_what_is_counted_on_the_pruned_network(name: str, seed: int) -> None:
    net, example = NETWORKS[name](), NETWORKS[name].example()
    graph = trace(net, example)
    dense = amounts(graph)
    assert (dense.params, dense.macs) == counted(net, example)
    assert dense.channels == sum(group.size for group in graph.prunable) > 0
    plan = random_plan(graph, seed=seed)
    foretold = amounts(graph, graph.widths(plan))
    apply_(net, graph.cut(plan))
    assert (foretold.params, foretold.macs) == counted(net, example)
    assert foretold.channels == sum(len(kept) for kept in plan.kept.values()) < dense.channels


class Spare(Chain):
    """A chain beside layers that never run, two of which are one."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Linear(4, 4)
        self.spare = nn.ModuleDict({"a": nn.Linear(5, 6), "b": shared, "c": shared})
        self.spare2 = nn.Linear(1, 1)


def test_what_is_dropped_no_longer_counts() -> None:
    net = Spare()
    graph = trace(net, Chain.example())
    without = copy.deepcopy(net)
    without.spare = nn.ModuleDict()
    assert amounts(graph, dropped=("spare",)).params == sum(p.numel() for p in without.parameters())
    assert amounts(graph).params == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", ["params", "macs", "channels", "memory"])
@pytest.mark.parametrize("value", [0, -0.1, -5, 1.01, 30.5, math.nan, math.inf, True, "0.3", None])
def test_what_is_no_fraction_and_no_amount_is_refused(name: str, value: object) -> None:
    message = (
        f"budget {name}=.* is no fraction or amount kept: give a number above 0.* a whole number above 1"
    )
    with pytest.raises(PruningError, match=message):
        Budget.of({name: value})  # type: ignore[dict-item]


@pytest.mark.parametrize("value", [0, -1, 2, 1.5, math.nan, math.inf, True, "0.3", None])
def test_a_latency_is_a_fraction(value: object) -> None:
    with pytest.raises(PruningError, match=r"budget latency=.* milliseconds are called latency_ms"):
        Budget.of({"latency": value})  # type: ignore[dict-item]


@pytest.mark.parametrize("value", [0, -1.5, math.nan, math.inf, True, "20", None])
def test_milliseconds_are_above_zero(value: object) -> None:
    with pytest.raises(PruningError, match=r"budget latency_ms=.* is no time: give milliseconds"):
        Budget.of({"latency_ms": value})  # type: ignore[dict-item]


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.float64(1e-9)])
def test_numbers_of_any_kind_are_read(value: float) -> None:
    assert Budget.of({"macs": value}) == Budget(macs=value)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({}, "a budget is a mapping such as"),
        (0.3, r"of params, macs, channels, memory, latency, latency_ms; got 0\.3"),
        ([("params", 0.3)], "a budget is a mapping"),
        (
            {"parms": 0.3},
            "no budget is called 'parms': choose one of params, macs, .*; did you mean 'params'",
        ),
        ({"MACS": 0.3}, "did you mean 'macs'"),
    ],
)
def test_what_is_no_budget_is_refused(budget: object, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        Budget.of(budget)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fractions", "limit"),
    [
        ({}, (1000, 100, 10)),
        ({"params": 0.3}, (300, 100, 10)),
        ({"params": 0.0019, "macs": 0.5, "channels": 0.99}, (1, 50, 9)),
        ({"macs": 0.29}, (1000, 29, 10)),  # 0.29 * 100 is 28.999999999999996
    ],
)
def test_a_limit_is_the_whole_number_below_and_never_a_hair_too_small(
    fractions: dict[str, float], limit: tuple[int, int, int]
) -> None:
    assert Budget(**fractions).limit(DENSE) == Amounts(*limit)


@pytest.mark.parametrize(
    ("asked", "limit"),
    [
        ({"params": 250}, (250, 100, 10, None, None)),
        ({"params": 250.0, "memory": 0.5}, (250, 100, 10, 2048, None)),
        ({"macs": 10**9}, (1000, 100, 10, None, None)),  # more than there is
        ({"channels": 1}, (1000, 100, 10, None, None)),  # the fraction
        ({"memory": 4000}, (1000, 100, 10, 4000, None)),
        ({"latency": 0.25}, (1000, 100, 10, None, 5.0)),
        ({"latency": 0.25, "latency_ms": 3}, (1000, 100, 10, None, 3.0)),
        ({"latency": 0.1, "latency_ms": 3}, (1000, 100, 10, None, 2.0)),
    ],
)
def test_amounts_and_fractions_become_one_limit(asked: dict[str, float], limit: tuple[float, ...]) -> None:
    dense = Amounts(1000, 100, 10, memory=4096, latency_ms=20.0)
    assert Budget.of(asked).limit(dense) == Amounts(*limit)  # type: ignore[arg-type]


def test_amounts_are_fractions_of_a_dense_network() -> None:
    dense = Amounts(1000, 100, 10, memory=4096, latency_ms=20.0)
    budget = Budget(params=250, macs=0.3, memory=10**6, latency=0.9, latency_ms=5)
    assert budget.relative(dense).fractions == {"params": 0.25, "macs": 0.3, "memory": 1.0, "latency": 0.25}
    assert budget.names == ("params", "macs", "memory", "latency_ms")
    with pytest.raises(
        PruningError, match=r"\{'params': 250, 'latency_ms': 5\} is no fraction; call relative"
    ):
        Budget(params=250, macs=0.3, latency_ms=5).fractions  # noqa: B018 - the property raises


@pytest.mark.parametrize(("asked", "what"), [({"latency": 0.5}, "latency"), ({"memory": 0.5}, "memory")])
def test_what_is_asked_of_a_network_has_to_be_known(asked: dict[str, float], what: str) -> None:
    with pytest.raises(PruningError, match=f"a budget of {what} needs"):
        Budget.of(asked).limit(DENSE)


@pytest.mark.parametrize("name", ["params", "macs", "channels"])
def test_all_amounts_have_to_be_within(name: str) -> None:
    more = {"params": 1000, "macs": 100, "channels": 10, name: getattr(DENSE, name) + 1}
    assert DENSE.within(DENSE)
    assert not Amounts(**more).within(DENSE)
    assert DENSE.within(Amounts(**more))


def test_what_is_limited_has_to_be_known() -> None:
    assert not DENSE.within(Amounts(1000, 100, 10, memory=10**9))
    assert Amounts(1000, 100, 10, memory=8).within(Amounts(1000, 100, 10, memory=8))
    assert Amounts(1000, 100, 10, memory=8).above(Amounts(999, 100, 10, memory=7)) == ("params", "memory")


def test_a_shortfall_names_each_amount_and_no_other() -> None:
    text = shortfall(Amounts(300, 5, 5), Amounts(200, 10, 1), present=DENSE)
    assert text == (
        "the smallest reachable is 300 params (30.0 % of the present 1,000), above the limit of 200; "
        "the smallest reachable is 5 channels (50.0 % of the present 10), above the limit of 1; "
        "the nearest feasible budget is {'params': 300, 'macs': 10, 'channels': 5}"
    )
