"""Predictions against times that are worked out on networks that are really cut."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seg_pruning as sp
from seg_pruning.profiling import LatencyModel, Target, latency_of
from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.trial import random_plan
from tests.profiling.worked import PER_MAC, Worked, macs


class Mixed(nn.Module):
    """Convolutions of every kind, and linear layers: strided, grouped, depthwise, transposed, shared."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, stride=2, padding=1, bias=False)
        self.depth, self.grouped = nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.Conv2d(24, 32, 3, groups=2)
        self.shared = nn.Conv2d(32, 32, 1)
        self.up = nn.ConvTranspose2d(32, 20, 2, stride=2)
        self.inner, self.outer = nn.Linear(20, 40), nn.Linear(40, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.depth(self.stem(x)).relu())
        x = self.up(self.shared(self.shared(x).relu()))
        return self.outer(self.inner(x.mean((2, 3))).relu())


IMAGE = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def new(seed: int = 0) -> Mixed:
    torch.manual_seed(seed)
    return Mixed()


def foretold(
    folder: Path, clock: Worked, net: nn.Module, **target: int
) -> tuple[sp.ChannelGraph, LatencyModel]:
    graph = sp.trace(net, IMAGE)
    return graph, latency_of(graph, net, IMAGE, Target(cache=str(folder), **target), clock=clock)


@pytest.mark.parametrize("batch", [1, 5])
def test_times_of_layers_add_up_to_those_of_the_pruned_network(tmp_path: Path, batch: int) -> None:
    graph, latency = foretold(tmp_path, Worked(), new(), batch=batch)
    images = torch.randn(batch, 3, 12, 12)
    for seed in range(4):
        plan = random_plan(graph, seed=seed)
        net = new()
        sp.apply_(net, graph.cut(plan))
        expected = PER_MAC * macs(lambda net=net: net.eval()(images))
        assert latency(graph.widths(plan)) == pytest.approx(expected)


def test_what_layers_do_not_take_is_a_constant_and_a_price_for_each_byte(tmp_path: Path) -> None:
    graph, latency = foretold(tmp_path, Worked(lambda layers: 2 * layers + 0.25), new())
    whole = np.array([group.size for group in graph.prunable], dtype=np.float64)
    dense = PER_MAC * macs(lambda: new()(IMAGE[:1]))
    assert latency(whole) == pytest.approx(2 * dense + 0.25)
    assert latency(np.ceil(whole / 4)) < latency(np.ceil(whole / 2)) < latency(whole)
    assert latency(np.ceil(whole / 4)) > 0.25
    assert latency.corrected(1.5)(whole) == pytest.approx(1.5 * latency(whole))


def test_a_network_faster_than_its_layers_is_scaled(tmp_path: Path) -> None:
    graph, latency = foretold(tmp_path, Worked(lambda layers: 0.5 * layers), new())
    whole = np.array([group.size for group in graph.prunable], dtype=np.float64)
    assert latency(whole) == pytest.approx(0.5 * PER_MAC * macs(lambda: new()(IMAGE[:1])))


def test_fewer_channels_never_take_longer(tmp_path: Path) -> None:
    class Noisy(Worked):
        def one(self, call):
            return super().one(call) * float(rng.uniform(0.5, 2.0))

    rng = np.random.default_rng(0)
    graph, latency = foretold(tmp_path, Noisy(), new())
    kept = np.array([group.size for group in graph.prunable], dtype=np.float64)
    last = latency(kept)
    while (kept > 1).any():
        kept = np.maximum(1, kept - rng.integers(0, 4, len(kept)))
        assert latency(kept) <= last + 1e-12
        last = latency(kept)


def test_the_network_is_as_it_was(tmp_path: Path) -> None:
    net = new().train()
    net.stem.eval()
    net(IMAGE).sum().backward()
    before = {
        name: (p, p.data_ptr(), p.detach().clone(), p.grad.clone()) for name, p in net.named_parameters()
    }
    sizes = [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)]
    graph = sp.trace(net, IMAGE)
    latency_of(graph, net, IMAGE, Target(cache=str(tmp_path), dtype="bfloat16"), clock=Worked())
    for name, p in net.named_parameters():
        tensor, where, value, grad = before[name]
        assert p is tensor
        assert (p.data_ptr(), p.dtype) == (where, torch.float32)
        assert torch.equal(p, value)
        assert torch.equal(p.grad, grad)
    assert [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)] == sizes
    assert (net.training, net.stem.training) == (True, False)
    sp.prune_(net, IMAGE, budget={"params": 0.5})


def test_conditions_hold_while_the_network_is_timed(tmp_path: Path) -> None:
    seen = set()

    class Spy(Worked):
        def milliseconds(self, calls):
            for call in calls:
                if inputs := [a for a in getattr(call, "args", ()) if isinstance(a, nn.Module)]:
                    weight = inputs[0].stem.weight
                    seen.add((weight.dtype, inputs[0].training, torch.is_grad_enabled()))
            return super().milliseconds(calls)

    target = Target(cache=str(tmp_path), dtype="bfloat16", batch=3)
    net = new().train()
    latency = latency_of(sp.trace(net, IMAGE), net, IMAGE, target, clock=Spy())
    assert seen == {(torch.bfloat16, False, False)}
    assert latency.timer.inputs.shapes == ((3, 3, 12, 12),)
    assert latency.timer.inputs.tensors[0].dtype == torch.bfloat16


class Thick(nn.Sequential):
    """Refuses to run thin."""

    def forward(self, x: Tensor) -> Tensor:
        if self[0].weight.shape[0] == 4:  # a quarter, and no width that the trials happen to try
            raise RuntimeError("too thin")
        return super().forward(x)


def test_a_network_that_does_not_run_thin_has_a_constant_rest(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Thick(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 2, 1))
    dense = PER_MAC * macs(lambda: net(IMAGE[:1]))
    _, latency = foretold(tmp_path, Worked(lambda layers: layers + 0.5), net)
    assert net[0].out_channels == 16
    assert latency(np.array([16.0])) == pytest.approx(dense + 0.5)
    assert (latency.fixed, latency.per_byte) == (pytest.approx(0.5), 0.0)


def test_a_network_of_which_nothing_can_leave(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    graph, latency = foretold(tmp_path, Worked(), net)
    assert not graph.prunable
    assert latency(np.zeros(0)) == pytest.approx(PER_MAC * macs(lambda: net(IMAGE[:1])))
    graph, latency = foretold(tmp_path, Worked(lambda layers: 0.25), nn.Sequential(nn.ReLU()))
    assert latency(np.zeros(0)) == 0.25


# -- what is kept on disk


def test_layers_are_measured_once_and_again_under_other_conditions(tmp_path: Path) -> None:
    first = Worked()
    graph, latency = foretold(tmp_path, first, new())
    assert len(first.layers) == len(set(first.layers)) > 20
    again = Worked()
    _, same = foretold(tmp_path, again, new(1))
    assert again.layers == []
    whole = np.array([group.size for group in graph.prunable], dtype=np.float64)
    assert same(whole) == latency(whole)
    for conditions in ({"threads": 2}, {"batch": 2}):
        other = Worked()
        foretold(tmp_path, other, new(), **conditions)
        assert len(other.layers) == len(first.layers)


def test_a_network_that_was_cut_reads_the_table_of_the_dense_one(tmp_path: Path) -> None:
    graph, _ = foretold(tmp_path, Worked(), new())
    net = new()
    kept = {g.name: tuple(sorted(i for row in g.rows for i in row[: len(row) // 2])) for g in graph.prunable}
    sp.apply_(net, graph.cut(sp.Plan(kept, {g.name: g.size for g in graph.prunable})))
    clock = Worked()
    now, latency = foretold(tmp_path, clock, net)
    assert clock.layers == []
    whole = np.array([group.size for group in now.prunable], dtype=np.float64)
    assert latency(whole) == pytest.approx(PER_MAC * macs(lambda: net.eval()(IMAGE[:1])))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"conditions": {}, "layers": {}}', "half", '{"conditions": 1, "layers": {"a": 1}}'],
)
def test_a_cache_that_is_corrupt_is_measured_anew_with_a_warning(tmp_path: Path, text: str) -> None:
    foretold(tmp_path, Worked(), new())
    (file,) = tmp_path.iterdir()
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2] if text == "half" else text)
    clock = Worked()
    with pytest.warns(UserWarning, match="latency cache .* cannot be read and is measured anew"):
        foretold(tmp_path, clock, new())
    assert clock.layers
    assert file.read_text() == whole
    assert list(tmp_path.iterdir()) == [file]


def test_attached_example_inputs_are_not_changed(tmp_path: Path) -> None:
    image = IMAGE.clone()
    net = copy.deepcopy(new())
    latency_of(sp.trace(net, image), net, Inputs.of(image), Target(cache=str(tmp_path)), clock=Worked())
    assert torch.equal(image, IMAGE)
