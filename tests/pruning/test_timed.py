"""Budgets of latency on networks whose times are worked out by hand, never measured."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import seg_pruning as sp
from seg_pruning.profiling import Target, latency_model, latency_of
from seg_pruning.pruning.amounts import Amounts
from seg_pruning.pruning.selection import select
from seg_pruning.pruning.timed import select_timed
from tests.profiling.worked import PER_MAC, Worked, macs
from tests.pruning.test_amounts import IMAGE, Chain, Residual, Separable, UNet


def crooked(layers: float) -> float:
    """A device on which thin networks gain less than their layers say."""
    return 0.3 + 2 * layers**0.8


def pruned(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    kind: type[nn.Module],
    budget: dict[str, float],
    **options: object,
) -> tuple[nn.Module, nn.Module, sp.PruneResult]:
    monkeypatch.setattr(latency_model, "DeviceClock", lambda *_, **__: Worked(crooked))
    torch.manual_seed(0)
    net = kind()
    dense = copy.deepcopy(net)
    target = Target(cache=str(folder))
    return dense, net, sp.prune_(net, IMAGE, budget=budget, target=target, **options)  # type: ignore[arg-type]


def milliseconds(net: nn.Module) -> float:
    return crooked(PER_MAC * macs(lambda: net.eval()(IMAGE)))


@pytest.mark.parametrize("kept", [0.7, 0.45])
@pytest.mark.parametrize("kind", [Chain, Residual, UNet, Separable])
def test_a_latency_is_got_within_five_percent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: type[nn.Module], kept: float
) -> None:
    dense, net, result = pruned(monkeypatch, tmp_path, kind, {"latency": kept}, round_to=1)
    spent = result.spent["latency_ms"]
    assert spent.asked == pytest.approx(kept * milliseconds(dense))
    assert spent.got == pytest.approx(milliseconds(net))
    assert spent.predicted == pytest.approx(spent.got, rel=0.05)
    assert 0.95 * spent.asked <= spent.got <= spent.asked
    assert result.before.latency is not None
    assert result.after.latency is not None


def test_milliseconds_hold_beside_other_budgets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.manual_seed(0)
    asked = 0.6 * milliseconds(UNet())
    _, net, result = pruned(monkeypatch, tmp_path, UNet, {"latency_ms": asked, "params": 0.3}, round_to=1)
    assert result.spent["latency_ms"].got == pytest.approx(milliseconds(net))
    assert milliseconds(net) <= asked
    assert result.after.params <= 0.3 * result.before.params
    assert max(spent.got / spent.asked for spent in result.spent.values()) >= 0.95
    json.dumps({name: vars(spent) for name, spent in result.spent.items()}, allow_nan=False)


def test_widths_are_multiples_of_eight_where_time_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    *_, result = pruned(monkeypatch, tmp_path, UNet, {"latency": 0.5})
    assert {len(kept) % 8 for kept in result.plan.kept.values()} == {0}
    assert 0.85 < result.spent["latency_ms"].got / result.spent["latency_ms"].asked <= 1
    *_, other = pruned(monkeypatch, tmp_path, UNet, {"macs": 0.5})
    assert {len(kept) % 8 for kept in other.plan.kept.values()} != {0}


def test_scores_per_latency(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    selection = sp.Selection(per="latency")
    *_, result = pruned(monkeypatch, tmp_path, UNet, {"params": 0.5}, selection=selection)
    *_, plain = pruned(monkeypatch, tmp_path, UNet, {"params": 0.5})
    assert set(result.spent) == {"params"}
    assert result.plan != plain.plan


def test_what_cannot_be_reached_is_refused_and_nothing_is_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(
        sp.PruningError, match=r"smallest reachable is 1\.\d+ latency_ms .* nearest feasible budget"
    ):
        pruned(monkeypatch, tmp_path, Chain, {"latency_ms": 0.1})


@pytest.mark.parametrize(
    ("network", "rounds"),
    [
        (lambda layers: layers, 1),
        (lambda layers: 1.7 * layers, 3),
        (crooked, 3),
    ],
)
def test_rounds_end_when_it_is_near_enough(
    tmp_path: Path, network: Callable[[float], float], rounds: int
) -> None:
    torch.manual_seed(0)
    net = UNet()
    graph = sp.trace(net, IMAGE)
    latency = latency_of(graph, net, IMAGE, Target(cache=str(tmp_path)), clock=Worked(network))
    scores = {group.name: torch.rand(group.size) for group in graph.prunable}
    asked = 0.4 * network(PER_MAC * macs(lambda: net.eval()(IMAGE)))
    plans = []

    def choose(limit: Amounts, predictor: object) -> sp.Plan:
        plans.append(select(graph, scores, limit, latency=predictor))  # type: ignore[arg-type]
        return plans[-1]

    found = select_timed(choose, latency, Amounts(10**9, 10**12, 10**6, latency_ms=asked))
    assert 0.95 * asked <= found.got <= asked
    assert 1 <= len(plans) <= rounds
    assert found.plan == plans[-1]


def test_the_nearest_widths_are_taken_where_none_is_within(tmp_path: Path) -> None:
    """One group of 64 channels, kept to multiples of 32: half of them or all."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 2, 1))
    graph = sp.trace(net, IMAGE)
    latency = latency_of(graph, net, IMAGE, Target(cache=str(tmp_path)), clock=Worked())
    dense = PER_MAC * macs(lambda: net(IMAGE))
    scores = {"0": torch.rand(64)}

    def choose(limit: Amounts, predictor: object) -> sp.Plan:
        return select(graph, scores, limit, sp.Selection(round_to=32), latency=predictor)  # type: ignore[arg-type]

    found = select_timed(choose, latency, Amounts(10**9, 10**12, 10**6, latency_ms=0.8 * dense))
    assert len(found.plan.kept["0"]) == 32
    assert found.got == pytest.approx(dense / 2)


def test_a_machine_that_slows_down_counts_in_proportion(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, slow = UNet(), [1.0]
    graph = sp.trace(net, IMAGE)
    clock = Worked(lambda layers: slow[0] * layers)
    latency = latency_of(graph, net, IMAGE, Target(cache=str(tmp_path)), clock=clock)
    dense = PER_MAC * macs(lambda: net.eval()(IMAGE))
    slow[0] = 5.0
    scores = {group.name: torch.rand(group.size) for group in graph.prunable}
    limit = Amounts(10**9, 10**12, 10**6, latency_ms=0.5 * dense)
    found = select_timed(
        lambda limit, predictor: select(graph, scores, limit, latency=predictor),
        latency,
        limit,
        relative_to=dense,
    )
    sp.apply_(net, graph.cut(found.plan))
    assert found.got == pytest.approx(PER_MAC * macs(lambda: net.eval()(IMAGE)))
    assert 0.95 <= found.got / (0.5 * dense) <= 1.0


def test_what_stays_too_slow_is_a_warning(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, calls = Chain(), [0]
    graph = sp.trace(net, IMAGE)
    clock = Worked(lambda layers: layers if calls[0] == 0 else 1000.0)
    latency = latency_of(graph, net, IMAGE, Target(cache=str(tmp_path)), clock=clock)
    calls[0] = 1
    scores = {group.name: torch.rand(group.size) for group in graph.prunable}
    limit = Amounts(10**9, 10**12, 10**6, latency_ms=0.5 * PER_MAC * macs(lambda: net.eval()(IMAGE)))
    with pytest.warns(UserWarning, match=r"the nearest plan takes 1000\.00 ms of the"):
        found = select_timed(
            lambda limit, predictor: select(graph, scores, limit, latency=predictor), latency, limit
        )
    assert found.got == 1000.0
