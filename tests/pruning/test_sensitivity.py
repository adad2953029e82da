"""Sensitivity of networks for which it can be worked out by hand."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import seg_pruning as sp
from seg_pruning.pruning.criteria import L2, Taylor
from seg_pruning.pruning.sensitivity import network_digest, sensitivity, width_kept
from seg_pruning.pruning.sensitivity_record import SensitivityRow
from tests.networks import ChannelShuffle, Grouped, GroupNorm, Residual

ONES = torch.ones(1, 1, 2, 2)


class Two(nn.Module):
    """Sums of filters: those of `heard` count what they weigh, those of `unheard` nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.heard, self.unheard = nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(1, 6, 1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.sum, self.none = nn.Conv2d(4, 1, 1, bias=False), nn.Conv2d(6, 1, 1, bias=False)
        with torch.no_grad():
            self.heard.weight.copy_(torch.tensor([8.0, 1.0, 4.0, 2.0]).reshape(4, 1, 1, 1))
            self.sum.weight.fill_(1)
            self.none.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.sum(self.heard(x)) + self.none(self.norm(self.unheard(x)))


def total(net: nn.Module) -> float:
    """The output, which is 15 for the whole network: 1, 2, 4 and 8 leave in this order."""
    assert not net.training
    with torch.no_grad():
        return net(ONES).mean().item()


def of(rows: list[SensitivityRow], group: str, name: str) -> list[float]:
    return [getattr(row, name) for row in rows if row.group == group]


def test_each_group_loses_what_was_built_into_it() -> None:
    net = Two()
    rows = list(sensitivity(sp.trace(net, ONES), net, total, ratios=(0.25, 0.5, 0.75, 0.9)))
    assert of(rows, "heard", "kept") == [3, 2, 1, 1]
    assert of(rows, "heard", "metric") == [14, 12, 8, 8]
    assert of(rows, "heard", "drop") == [1, 3, 7, 7]
    assert of(rows, "unheard", "kept") == [5, 3, 2, 1]
    assert of(rows, "unheard", "drop") == [0, 0, 0, 0]
    assert len(rows) == 8


def test_a_metric_that_falls_is_better_has_drops_of_the_other_sign() -> None:
    net = Two()
    rows = list(sensitivity(sp.trace(net, ONES), net, total, ratios=[0.5], mode="min"))
    assert of(rows, "heard", "drop") == [-3]


def test_the_criterion_says_which_channels_leave() -> None:
    class Largest(L2):
        def __call__(self, *arguments: object) -> Tensor:
            return -super().__call__(*arguments)  # type: ignore[arg-type]

    net = Two()
    rows = list(sensitivity(sp.trace(net, ONES), net, total, criterion=Largest(), ratios=[0.25, 0.5]))
    assert of(rows, "heard", "drop") == [8, 12]


def test_a_criterion_of_gradients_reads_data() -> None:
    net = Two()
    graph = sp.trace(net, ONES)
    with pytest.raises(sp.PruningError, match="Taylor needs gradients"):
        sensitivity(graph, net, total, criterion=Taylor())
    pairs = [(ONES, torch.zeros(1, 1, 2, 2))]
    rows = list(sensitivity(graph, net, total, criterion="taylor", data=pairs, loss=nn.functional.mse_loss))
    assert of(rows, "heard", "drop") == [1, 3, 7, 7]


@pytest.mark.parametrize(
    "kind", [ChannelShuffle, GroupNorm, Grouped, Residual], ids=lambda kind: kind.__name__
)
def test_each_point_is_the_network_that_pruning_would_give(kind: type) -> None:
    """Params, MACs and the answer, against a copy that is cut for good to as many channels."""
    torch.manual_seed(0)
    net, example = kind().eval(), kind.example()
    graph = sp.trace(net, example)
    seen: list[tuple[int, int, Tensor, dict[str, Tensor]]] = []

    def evaluate(model: nn.Module) -> float:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            answer = model(example)
        params = sum(p.numel() for p in model.parameters())
        state = {name: value.clone() for name, value in model.state_dict().items()}
        seen.append((params, counter.get_total_flops() // 2, answer, state))
        return 0.0

    rows = list(sensitivity(graph, net, evaluate, ratios=[0.5]))
    assert len(seen) == len(rows) + 1
    for row, (params, macs, answer, state) in zip(rows, seen[1:], strict=True):
        assert (row.params, row.macs) == (params, macs)
        assert row.kept < row.size
        again = copy.deepcopy(net)
        graph_of_copy = sp.trace(again, example)
        sp.prune_(
            again,
            example,
            budget={"channels": 1 - (row.size - row.kept) / sum(g.size for g in graph_of_copy.prunable)},
            selection=sp.Selection(
                floor=0, head_floor=0, protect=tuple(g.name for g in graph.prunable if g.name != row.group)
            ),
        )
        assert {name: value.shape for name, value in again.state_dict().items()} == {
            name: value.shape for name, value in state.items()
        }
        with torch.no_grad():
            torch.testing.assert_close(again.eval()(example), answer)


@pytest.mark.parametrize(
    ("size", "blocks", "ratio", "kept"),
    [
        (100, 1, 0.29, 71),
        (3, 1, 0.25, 3),
        (8, 2, 0.4, 6),
        (8, 4, 0.5, 4),
        (8, 4, 0.99, 4),
        (1000, 1, 0.9, 100),
    ],
)
def test_widths_are_legal_and_no_more_than_asked_leaves(
    size: int, blocks: int, ratio: float, kept: int
) -> None:
    rows = tuple(tuple(range(at, size, blocks)) for at in range(blocks))
    assert width_kept(sp.ChannelGroup("g", size, (), (), rows, True, ""), ratio) == kept


def everything(net: nn.Module) -> dict[str, object]:
    tensors = dict(net.named_parameters()) | dict(net.named_buffers())
    values = {name: (id(t), t.data_ptr(), t.detach().clone().tolist()) for name, t in tensors.items()}
    attributes = {
        f"{path}.{key}": value
        for path, module in net.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, int | float | str | tuple | None)
    }
    return values | attributes | {"grad": net.heard.weight.grad.tolist()}  # type: ignore[union-attr]


def recalibrating(net: nn.Module) -> float:
    net.train()
    net(torch.arange(8.0).reshape(2, 1, 2, 2))
    net.count = 1  # type: ignore[assignment]
    return 1.0


def failing(net: nn.Module) -> float:
    if net.unheard.out_channels < 6:  # type: ignore[operator]
        raise KeyboardInterrupt
    return 1.0


@pytest.mark.parametrize("evaluate", [total, recalibrating, failing])
def test_the_network_is_untouched(evaluate: Callable[[nn.Module], float]) -> None:
    net = Two().train()
    net.norm.eval()
    net(ONES.expand(2, 1, 2, 2)).sum().backward()
    graph = sp.trace(net, ONES)
    before = everything(net)
    try:
        for row in sensitivity(graph, net, evaluate):
            assert everything(net) == before, row
    except KeyboardInterrupt:
        assert evaluate is failing
    assert everything(net) == before


def test_a_width_is_measured_once() -> None:
    net, widths = Two(), []

    def evaluate(model: nn.Module) -> float:
        widths.append((model.heard.out_channels, model.unheard.out_channels))
        return 0.0

    rows = list(sensitivity(sp.trace(net, ONES), net, evaluate, ratios=(0.1, 0.75, 0.8, 0.9)))
    assert widths == [(4, 6), (1, 6), (4, 2), (4, 1)]
    assert of(rows, "heard", "kept") == [4, 1, 1, 1]


def test_what_is_protected_is_not_cut_and_needs_no_score() -> None:
    net = Two()
    graph = sp.trace(net, ONES)
    with pytest.raises(sp.PruningError, match="'heard'"):
        sensitivity(graph, net, total, criterion="bn_scale")
    rows = list(sensitivity(graph, net, total, criterion="bn_scale", ratios=[0.5], protect=["hea*"]))
    assert [(row.group, row.kept) for row in rows] == [("unheard", 3)]
    assert rows[0].params == sum(p.numel() for p in net.parameters()) - 3 * 4


def test_progress_counts_points() -> None:
    net, seen = Two(), []
    list(sensitivity(sp.trace(net, ONES), net, total, ratios=[0.5], progress=lambda *at: seen.append(at)))
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratios": []}, r"expected ratios .* got \[\]"),
        ({"ratios": [0.5, 1.0]}, r"above 0 and below 1, but got \[1\.0\]"),
        ({"ratios": [float("nan")]}, r"got \[nan\]"),
        ({"mode": "maximum"}, "one of .*'max', 'min'.*'maximum'"),
        ({"protect": ["haerd"]}, "'haerd', which no group or layer matches; nearest: heard"),
        ({"criterion": "l3"}, "'l3': choose one of"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(options: dict[str, object], message: str) -> None:
    net = Two()
    with pytest.raises(sp.PruningError, match=message):
        sensitivity(sp.trace(net, ONES), net, total, **options)  # type: ignore[arg-type]


def test_a_metric_that_is_no_number_is_refused() -> None:
    net = Two()
    with pytest.raises(sp.PruningError, match="whole network is nan"):
        list(sensitivity(sp.trace(net, ONES), net, lambda _: float("nan")))


def test_a_digest_follows_weights_not_their_place() -> None:
    net = Two()
    first = network_digest(sp.trace(net, ONES), net)
    moved = copy.deepcopy(net).to(memory_format=torch.channels_last)
    assert network_digest(sp.trace(moved, ONES), moved) == first
    with torch.no_grad():
        moved.heard.weight[0] += 1e-6
    assert network_digest(sp.trace(moved, ONES), moved) != first
