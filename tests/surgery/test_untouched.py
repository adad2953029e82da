"""Whatever a forward pass writes into a network is put back."""

import copy
import pickle
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from seg_pruning.surgery.trace import record
from seg_pruning.surgery.trial import trace
from seg_pruning.surgery.untouched import untouched

IMAGE = torch.rand(1, 3, 4, 4)


class Writer(nn.Module):
    """Counts, keeps features, fills caches, registers a buffer and overwrites attributes in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.width, self.calls, self.cached = 8, 0, None
        self.history, self.cache, self.seen = [], {}, {4}
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


def is_as_built(model: Writer) -> bool:
    fresh = Writer()
    assert {k: list(v) for k, v in vars(model).items() if k in ("_buffers", "_parameters", "_modules")} == {
        k: list(v) for k, v in vars(fresh).items() if k in ("_buffers", "_parameters", "_modules")
    }
    assert model.steps == 0
    assert model.mean.isnan().all()
    names = ("width", "calls", "cached", "history", "cache", "seen")
    assert [getattr(model, name) for name in names] == [getattr(fresh, name) for name in names]
    return list(vars(model)) == list(vars(fresh))


@pytest.mark.parametrize("look", [record, trace])
@pytest.mark.parametrize("fail", [False, True])
def test_looking_at_a_network_leaves_nothing_in_it(look, fail):
    torch.manual_seed(0)
    model = Writer().train()
    model.last.eval()
    history, buffer = model.history, model.mean
    model.fail = fail
    with pytest.raises(ValueError, match="boom") if fail else nullcontext():
        look(model, IMAGE)
    assert is_as_built(model)
    assert model.history is history
    assert model.mean is buffer
    assert [m.training for m in model.modules()] == [True, True, False]
    assert is_as_built(pickle.loads(pickle.dumps(copy.deepcopy(model))))


def test_a_network_that_fills_a_cache_has_the_graph_that_it_has_with_the_cache_full():
    torch.manual_seed(0)
    cold = Writer()
    warm = copy.deepcopy(cold)
    warm(IMAGE)
    found = [(group.name, group.size) for group in trace(cold, IMAGE).prunable]
    assert ("first", 8) in found
    assert found == [(group.name, group.size) for group in trace(warm, IMAGE).prunable]


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
