"""Whatever a forward pass writes into a network is put back."""

import copy
import pickle
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.operation import operate_
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trace import record
from seg_pruning.surgery.trial import trace
from seg_pruning.surgery.untouched import untouched

IMAGE = torch.rand(1, 3, 4, 4)


class Writer(nn.Module):
    """Counts, keeps features, fills caches, registers a buffer and overwrites attributes in its forward."""

    def __init__(self, *, filled: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.width, self.calls, self.filled = 8, 0, filled
        self.cached = torch.ones(1) if filled else None
        self.history, self.cache, self.seen = [], {"grid": torch.ones(1)} if filled else {}, {4}
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.full((8,), float("nan")))
        self.fail = False

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        self.mean.fill_(1.0)
        self.calls += 1
        self.history.append(self.width)
        self.seen.add(self.width)
        self.copied = copy.deepcopy({"width": self.width})
        if self.cached is None:
            self.cached = torch.ones(1)
        if "grid" not in self.cache:
            self.cache["grid"] = torch.ones(1)
        x = self.feature = self.first(x)
        self.register_buffer("extra", torch.ones(1))
        if self.fail:
            raise RuntimeError("boom")
        return self.last(x) * self.cached * self.cache["grid"]


def assert_as_built(model: Writer) -> None:
    """Asserts that nothing of what forward writes is in `model`."""
    fresh = Writer(filled=model.filled)
    names = ("width", "calls", "cached", "history", "cache", "seen")
    assert [getattr(model, name) for name in names] == [getattr(fresh, name) for name in names]
    assert model.steps == 0
    assert model.mean.isnan().all()
    assert list(model._buffers) == list(fresh._buffers)
    assert not {"copied", "feature"} & set(vars(model))


@pytest.mark.parametrize("look", [record, trace])
@pytest.mark.parametrize("fail", [False, True])
def test_looking_at_a_network_leaves_nothing_in_it(look, fail):
    torch.manual_seed(0)
    model = Writer(filled=look is trace).train()
    model.last.eval()
    history, buffer, attributes = model.history, model.mean, list(vars(model))
    model.fail = fail
    with pytest.raises(PruningError, match="boom") if fail else nullcontext():
        look(model, IMAGE)
    assert_as_built(model)
    assert model.history is history
    assert model.mean is buffer
    assert list(vars(model)) == attributes
    assert [m.training for m in model.modules()] == [True, True, False]
    assert_as_built(pickle.loads(pickle.dumps(copy.deepcopy(model))))


def test_a_cut_leaves_nothing_of_its_proof_in_the_network():
    torch.manual_seed(0)
    model = Writer(filled=True)
    graph = trace(model, IMAGE)
    operate_(model, graph, Plan({"first": (0, 2, 5)}, {"first": 8}), Inputs.of(IMAGE))
    assert model.first.out_channels == 3
    assert_as_built(model)


def test_a_network_that_fills_a_cache_is_refused_until_it_has_been_run():
    torch.manual_seed(0)
    with pytest.raises(PruningError, match="one that fills a cache has to be run once before"):
        trace(Writer(), IMAGE)
    assert "first" in {group.name for group in trace(Writer(filled=True), IMAGE).prunable}


def test_a_buffer_that_did_not_change_stays_fit_for_a_backward_pass():
    model = nn.BatchNorm2d(3).eval()
    loss = model(IMAGE).sum()
    with untouched(model):
        model(IMAGE)
    loss.backward()
    assert model.weight.grad is not None


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
def test_a_scripted_network_keeps_its_mode():
    model = nn.Sequential(torch.jit.script(nn.Dropout()), nn.ReLU()).train()
    with untouched(model):
        model.eval()
    assert [module.training for module in model.modules()] == [True, True, True]
