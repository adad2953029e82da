"""What a pass notes, and that the network and the world around it do not notice."""

import random
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.expressions import evaluate
from seg_pruning.surgery.labels import components
from seg_pruning.surgery.sizes import Size
from seg_pruning.surgery.trace import record

IMAGE = torch.rand(2, 3, 8, 8)


@dataclass
class Answer:
    logits: Tensor
    note: str = "polyp"


class Network(nn.Module):
    """Two convolutions, noise, one layer that never runs, and an answer of any form."""

    def __init__(self, answer=lambda x: x, *, fail: bool = False) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6)
        self.drop, self.last = nn.Dropout(0.5), nn.Conv2d(6, 4, 1)
        self.unused = nn.Linear(5, 5)
        self.width, self.answer, self.fail = 6, answer, fail

    def forward(self, x: Tensor) -> object:
        x = self.drop(self.norm(self.first(x)).relu())
        x = x + torch.rand(1)
        if self.fail:
            raise RuntimeError("boom")
        return self.answer(self.last(x.view(-1, self.width, 8, 8)))


def pinned(trace, tensor, dim):
    """For each index of one dim whether it is pinned."""
    root = components(trace.count, trace.ties)
    held = {int(root[i]) for labels, _ in trace.pins for i in labels}
    (mint,) = [m for m in trace.mints if (m.tensor, m.dims) == (tensor, (dim,))]
    return [int(root[i]) in held for i in mint.labels.reshape(-1)]


@pytest.mark.parametrize("fail", [False, True])
def test_the_network_and_the_generators_are_untouched(fail):
    torch.manual_seed(0)
    model = Network(fail=fail).train()
    model.norm.eval()
    model.first.weight.requires_grad_(False)
    model.last.bias.grad = torch.ones(4)
    calls = []
    model.last.register_forward_hook(lambda *_: calls.append(1))
    tensors = {name: (t, t.clone(), t.requires_grad) for name, t in model.state_dict(keep_vars=True).items()}
    attributes = [dict(vars(module)) for module in model.modules()]
    state, numbers, python = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with (
        pytest.raises(PruningError, match=r"\(\(2, 3, 8, 8\),\): RuntimeError: boom")
        if fail
        else nullcontext()
    ):
        record(model, IMAGE)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numbers).all()
    assert random.getstate() == python
    for name, tensor in model.state_dict(keep_vars=True).items():
        original, value, flag = tensors[name]
        assert tensor is original
        assert torch.equal(tensor, value)
        assert tensor.requires_grad is flag
    for module, before in zip(model.modules(), attributes, strict=True):
        assert list(vars(module)) == list(before)
        assert all(vars(module)[name] is value for name, value in before.items())
    assert [g is None for g in (model.first.weight.grad, model.last.bias.grad)] == [True, False]
    assert torch.is_grad_enabled()
    assert bool(calls) is not fail


def test_ops_are_those_that_run_in_their_order():
    class Names(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.ops: list[str] = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.ops.append(str(func))
            return func(*args, **(kwargs or {}))

    model, names = Network().eval(), Names()
    with torch.no_grad(), names:
        model(IMAGE)
    trace = record(model, IMAGE)
    assert trace.ops == tuple(names.ops)
    assert [op.split(".")[1] for op in trace.ops if "conv" in op or "relu" in op] == [
        "convolution", "relu", "convolution",
    ]  # fmt: skip


def test_what_never_runs_is_not_among_what_ran():
    trace = record(Network(), IMAGE)
    assert {name for name in trace.parameters if name not in trace.ran} == {"unused.weight", "unused.bias"}
    assert trace.shapes["first.weight"] == (6, 3, 1, 1)
    assert trace.parameter_set == {name for name, _ in Network().named_parameters()}


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: x,
        lambda x: (None, x),
        lambda x: [[x]],
        lambda x: {"out": x, "n": 3},
        Answer,
        lambda x: torch.distributions.Normal(x, 1.0, validate_args=False),
    ],
    ids=["tensor", "tuple", "list", "dict", "dataclass", "distribution"],
)
def test_what_reaches_the_output_or_the_input_is_pinned_and_the_rest_is_not(answer):
    trace = record(Network(answer), IMAGE)
    assert pinned(trace, "last.weight", 0) == [True] * 4
    assert pinned(trace, "last.bias", 0) == [True] * 4
    assert pinned(trace, "first.weight", 1) == [True] * 3
    assert pinned(trace, "first.weight", 0) == [False] * 6
    root = components(trace.count, trace.ties)
    units = {
        (m.tensor, m.dims): root[m.labels.reshape(-1)].tolist() for m in trace.mints if m.labels.size == 6
    }
    assert len({tuple(unit) for unit in units.values()}) == 1
    assert set(units) >= {("first.weight", (0,)), ("norm.running_var", (0,)), ("last.weight", (1,))}


def test_the_size_that_a_view_reads_is_noted_with_the_axis_that_it_sizes():
    trace = record(Network(), IMAGE)
    root = components(trace.count, trace.ties)
    (norm,) = [m.labels for m in trace.mints if m.tensor == "norm.weight"]
    assert len(trace.fits) == 2  # in eval mode and, since one layer does not run in it, in train mode
    for fit in trace.fits:
        assert [(d, str(size)) for d, size in fit.sizes] == [(1, "width")]
        assert fit.dim == 1
        assert (root[fit.labels.reshape(-1)] == root[norm]).all()
        assert trace.sizes[fit.sizes[0][1]] == 6


class Lengths(nn.Module):
    """A network that reads lengths of what its first layer makes."""

    def __init__(self, read) -> None:
        super().__init__()
        self.first, self.last, self.read = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1), read

    def forward(self, x: Tensor) -> Tensor:
        made = self.first(x)
        self.read(made)
        return self.last(made)


@pytest.mark.parametrize(
    ("read", "tracked"),
    [
        (lambda x: list(x.shape), [False, True, False, False]),
        (lambda x: list(x.size()), [False, True, False, False]),
        (lambda x: [x.shape[1], x.shape[-3], x.shape[0]], [True, True, False]),
        (lambda x: [x.size(1), x.size(-3), x.size(dim=1), x.size(3)], [True, True, True, False]),
        (lambda x: [x.numel(), x.shape.numel(), x.shape[2:].numel()], [True, True, False]),
        (lambda x: [len(x), x.ndim, x.dim()], [False, False, False]),
        (lambda x: list(x.flatten(2).movedim(1, -1).shape), [False, False, True]),
        (lambda x: list(x.mean(1).shape), [False, False, False]),
    ],
)
def test_the_lengths_that_python_reads_remember_which_axis_they_measure(read, tracked):
    found, plain = [], []
    record(Lengths(lambda x: found.append(read(x))), IMAGE)
    Lengths(lambda x: plain.append(read(x)))(IMAGE)
    (lengths,) = found
    assert lengths == plain[0]
    assert [isinstance(length, Size) for length in lengths] == tracked
    for size in (length for length in lengths if isinstance(length, Size)):
        assert evaluate(size.expression, lambda extent: extent.labels.shape[extent.dim]) == size


def test_lengths_are_plain_outside_of_a_trace():
    def read(x: Tensor) -> None:
        assert type(x.shape) is torch.Size
        assert {type(length) for length in x.shape} == {int}

    model = Lengths(lambda x: None)
    record(model, IMAGE)
    model.read = read
    model(IMAGE)


def test_what_was_computed_from_a_length_is_known_where_it_is_passed():
    class Halves(Lengths):
        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.last(x.reshape(2, 2, x.shape[1] // 2, 8, 8).flatten(1, 2))

    trace = record(Halves(None), IMAGE)
    (fit,) = trace.fits
    ((dim, size),) = fit.sizes
    assert (dim, fit.dim, fit.labels.shape) == (2, 2, (1, 2, 3, 1, 1))
    assert evaluate(size, lambda extent: extent.labels.shape[extent.dim]) == 3
    assert evaluate(size, lambda extent: 4) == 2
    assert not any("number" in reason for _, reason in trace.pins)


@pytest.mark.parametrize("answer", [lambda _: None, lambda x: x.mean().item(), lambda _: {}])
def test_an_answer_without_a_tensor_is_refused(answer):
    with pytest.raises(PruningError, match=r"returned no tensor but .*must return a tensor"):
        record(Network(answer), IMAGE)


@pytest.mark.parametrize("targets", [False, True], ids=["runs", "wants targets"])
def test_what_only_training_reads_counts_and_what_it_hides_is_pinned(targets):
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)
            self.deep, self.aux = nn.Conv2d(6, 5, 1), nn.Conv2d(5, 2, 1)

        def forward(self, x: Tensor, target: Tensor | None = None) -> object:
            x = self.stem(x)
            if not self.training:
                return self.head(x)
            x = self.deep(x)
            if targets:
                raise ValueError("training wants a target")
            return self.head(x.new_ones(1, 6, 1, 1)), self.aux(x)

    trace = record(Auxiliary(), IMAGE)
    assert pinned(trace, "stem.weight", 0) == [targets] * 6  # what `deep` reads
    assert pinned(trace, "deep.weight", 0) == [targets] * 5
    if not targets:
        assert pinned(trace, "aux.weight", 0) == [True] * 2
    assert ("deep.weight" in trace.ran, "aux.weight" in trace.ran) == (True, not targets)
    assert sum("convolution" in op for op in trace.ops) == 2
    assert len(trace.work) == 2


def test_two_traces_say_the_same():
    torch.manual_seed(0)
    first, second = (record(Network(), IMAGE) for _ in range(2))
    assert first.ops == second.ops
    assert first.count == second.count
    for a, b in zip(first.ties, second.ties, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [reason for _, reason in first.pins] == [reason for _, reason in second.pins]
