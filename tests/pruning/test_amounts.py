"""Budgets asked and got on small networks, counted on them by torch and by storages that live."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import seg_pruning as sp
from seg_pruning.pruning.amounts import Meter, amounts
from seg_pruning.pruning.budgets import Budget
from seg_pruning.pruning.selection import select
from tests.surgery.living import peak


def conv(read: int, made: int, **options: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(read, made, 3, padding=1, **options), nn.BatchNorm2d(made), nn.ReLU())


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv(3, 64), conv(64, 96), conv(96, 48))
        self.head = nn.Conv2d(48, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x))


class Residual(Chain):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = conv(48, 80), conv(80, 48)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(x)
        return self.head(x + self.outer(self.inner(x)))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.high, self.low, self.deep = conv(3, 32), conv(32, 64), conv(64, 128)
        self.up, self.out = conv(128 + 64, 64), conv(64 + 32, 32)
        self.head = nn.Conv2d(32, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        high = self.high(x)
        low = self.low(nn.functional.max_pool2d(high, 2))
        deep = self.deep(nn.functional.max_pool2d(low, 2))
        x = self.up(torch.cat([nn.functional.interpolate(deep, scale_factor=2), low], 1))
        return self.head(self.out(torch.cat([nn.functional.interpolate(x, scale_factor=2), high], 1)))


class Separable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depth = conv(3, 96), conv(96, 96, groups=96)
        self.point, self.head = nn.Conv2d(96, 160, 1), nn.Conv2d(160, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.point(self.depth(self.stem(x))).relu())


class Literal(nn.Module):
    """A convolution in two groups by a number, all of which stay."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(192, 64, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight, padding=1, groups=2)


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grouped = conv(3, 128), conv(128, 192, groups=2)
        self.head = nn.Conv2d(192, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.grouped(self.stem(x)))


IMAGE = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def counted(net: nn.Module) -> dict[str, int]:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.eval()(IMAGE)
    params = sum(p.numel() for p in net.parameters())
    return {"params": params, "macs": counter.get_total_flops() // 2, "memory": peak(net, IMAGE)}


@pytest.mark.parametrize("kept", [0.6, 0.25])
@pytest.mark.parametrize("amount", ["params", "macs", "memory"])
@pytest.mark.parametrize("kind", [Chain, Residual, UNet, Separable, Grouped])
def test_what_is_asked_is_got_within_a_hundredth_or_the_next_width(
    kind: type[nn.Module], amount: str, kept: float
) -> None:
    torch.manual_seed(0)
    net = kind()
    dense = counted(net)
    asked = kept * dense[amount]
    result = sp.prune_(net, IMAGE, budget={amount: kept})
    got = counted(net)
    assert (
        {amount: got[amount]}
        == {amount: result.spent[amount].got}
        == {amount: result.spent[amount].predicted}
    )
    assert result.spent[amount].asked == int(round(asked, 6))
    assert (result.after.params, result.after.macs) == (got["params"], got["macs"])
    assert got[amount] <= asked
    if got[amount] < 0.99 * asked:
        assert not wider_fits(kind(), result, asked, amount)


def wider_fits(net: nn.Module, result: sp.PruneResult, asked: float, amount: str) -> bool:
    """Whether some group could keep one step more, counted on the networks themselves."""
    graph = sp.trace(net, IMAGE)
    for name, kept in result.plan.kept.items():
        gone = [[i for i in row if i not in kept] for row in graph[name].rows]
        more = tuple(sorted((*kept, *(row[0] for row in gone))))
        wider = type(net)()
        plan = sp.Plan({**result.plan.kept, name: more}, result.plan.sizes)
        sp.apply_(wider, graph.cut(plan))
        if counted(wider)[amount] <= asked:
            return True
    return False


@pytest.mark.parametrize(
    "budget",
    [{"params": 20_000}, {"memory": 60_000, "macs": 0.5}, {"params": 0.5, "macs": 0.4, "channels": 120}],
)
def test_several_budgets_hold_together_and_one_is_used_up(budget: dict[str, float]) -> None:
    torch.manual_seed(0)
    net = UNet()
    result = sp.prune_(net, IMAGE, budget=budget)
    assert set(result.spent) == set(budget)
    assert all(spent.got <= spent.asked for spent in result.spent.values())
    assert max(spent.got / spent.asked for spent in result.spent.values()) > 0.99
    got = counted(net)
    assert all(got[name] == spent.got for name, spent in result.spent.items() if name != "channels")


def test_channels_of_groups_that_shrank_to_one_still_count() -> None:
    """The last channel of a group is no group of the next trace: it is remembered by the dense widths."""
    torch.manual_seed(0)
    net = Chain()
    graph = sp.trace(net, IMAGE)
    widths = {group.name: group.size for group in graph.groups}
    first, second = (graph.prunable[i].name for i in (0, 1))
    plan = sp.Plan({first: (5,), second: (3, 7)}, {first: 64, second: 96})
    sp.apply_(net, graph.cut(plan))
    graph = sp.trace(net, IMAGE)
    assert first not in graph.by_name
    assert amounts(graph, dense=widths).channels == 1 + 2 + 48
    assert amounts(graph).channels == 2 + 48
    scores = {group.name: torch.arange(group.size).float() for group in graph.prunable}
    limit = Budget(channels=30).limit(amounts(graph, dense=widths))
    plan = select(graph, scores, limit, sp.Selection(floor=0.0, head_floor=0.0), dense=widths)
    assert Meter(graph).widths(plan).sum() + 1 == 30


def test_blocks_of_one_channel_still_count() -> None:
    net = Grouped()
    net.grouped[0] = Literal()
    graph = sp.trace(net, IMAGE)
    widths = {group.name: group.size for group in graph.groups}
    name = graph.prunable[-1].name
    rows = graph[name].rows
    assert len(rows) == 2
    sp.apply_(net, graph.cut(sp.Plan({name: tuple(row[0] for row in rows)}, {name: graph[name].size})))
    now = sp.trace(net, IMAGE)
    assert not now[name].prunable
    assert amounts(now, dense=widths).channels == amounts(graph).channels - graph[name].size + 2


def test_amounts_never_grow_as_channels_leave() -> None:
    graph = sp.trace(UNet(), IMAGE)
    meter = Meter(graph)
    rng = np.random.default_rng(0)
    kept, last = meter.whole, meter.read(meter.whole)
    while (kept > 1).any():
        kept = np.maximum(1, kept - rng.integers(0, 20, len(kept)))
        now = meter.read(kept)
        assert now.within(last)
        last = now
