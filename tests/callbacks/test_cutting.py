from collections.abc import Iterator

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from seg_pruning.pruning.criteria import Criterion, Taylor
from seg_pruning.pruning.selection import Selection
from seg_pruning.surgery.note import structure_of
from tests.callbacks.modules import Stranger, fit, pruning, size


def state_values(optimizer: Optimizer, module: nn.Module) -> Iterator[tuple[str, Tensor, str, Tensor]]:
    """Name and parameter, then name and value, of all that the optimizer holds."""
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state[parameter].items():
            yield name, parameter, key, value


class Tag(L.Callback):
    """Listed before the cut of epoch 1: makes the optimizer's state a function of the weights."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}
        self.steps: dict[str, float] = {}

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch != 1:
            return
        self.weights = {name: value.detach().clone() for name, value in pl_module.named_parameters()}
        for name, parameter, key, value in state_values(trainer.optimizers[0], pl_module):
            assert key in ("momentum_buffer", "exp_avg", "exp_avg_sq", "step")
            if value.shape == parameter.shape:
                value.copy_(parameter.detach() * 3)
            else:
                self.steps[name] = float(value)


class Compare(L.Callback):
    """Listed after it: looks whether the function still holds, then whether all weights move."""

    def __init__(self, tag: Tag) -> None:
        self.tag = tag
        self.tensors = 0
        self.moved: dict[str, bool] = {}
        self.before: dict[str, Tensor] = {}

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch != 1:
            return
        for name, parameter in pl_module.named_parameters():
            assert torch.isin(parameter, self.tag.weights[name]).all()
        for name, parameter, _, value in state_values(trainer.optimizers[0], pl_module):
            if value.ndim or value.shape == parameter.shape:
                assert torch.equal(value, parameter.detach() * 3)
                self.tensors += 1
            else:
                assert float(value) == self.tag.steps[name] > 0
            value.zero_()  # the function above is no gradient: every move is then the gradient's
        self.before = {n: p.detach().clone() for n, p in pl_module.named_parameters()}

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            self.moved = {
                n: bool((p != self.before[n]).any()) and p.shape == self.before[n].shape
                for n, p in pl_module.named_parameters()
            }


@pytest.mark.parametrize(("optimizer", "moments"), [("sgd", 1), ("adam", 2), ("adamw", 2)])
def test_optimizer_state_is_cut_with_its_weights_and_every_weight_moves(tmp_path, optimizer, moments):
    module, tag = Stranger(optimizer), Tag()
    compare = Compare(tag)
    fit(tmp_path, module, tag, pruning(start_epoch=1, end_epoch=1), compare, max_epochs=2)
    assert size(module) <= 0.5 * sum(w.numel() for w in tag.weights.values())
    assert compare.tensors == moments * len(compare.moved)
    assert all(compare.moved.values())


class Least(Criterion):
    """Takes the last channels first."""

    gradients = False

    def __call__(self, group, weights, gradients):
        return -torch.arange(group.size, dtype=torch.float32)


@pytest.mark.parametrize("criterion", [Least(), Taylor(form="abs", members="out")], ids=["own", "taylor"])
def test_a_criterion_of_ones_own(tmp_path, criterion):
    module = Stranger()
    dense = size(module)
    fit(tmp_path, module, pruning(criterion=criterion, end_epoch=1), max_epochs=2)
    assert size(module) <= 0.5 * dense
    for plan in structure_of(module).plans if isinstance(criterion, Least) else ():
        assert all(kept == tuple(range(len(kept))) for kept in plan.kept.values())


def test_protected_layers_keep_their_width_and_widths_are_rounded(tmp_path):
    module = Stranger(width=8)
    selection = Selection(scope="local", round_to=4, protect=("net.first",))
    fit(tmp_path, module, pruning(selection=selection))
    assert module.net.first[0].out_channels == 8
    assert module.net.down[0].out_channels < 16
    assert module.net.down[0].out_channels % 4 == module.net.last.out_channels % 4 == 0


def test_a_budget_of_latency(tmp_path, monkeypatch):
    """A device on which each kept channel takes a millisecond: half of the time is half of the channels."""
    measured = []

    def clockless(graph, module, inputs, *, multiple):
        measured.append([group.size for group in graph.prunable])
        return lambda kept: float(kept.sum())

    monkeypatch.setattr("seg_pruning.callbacks.surveying.latency_of", clockless)
    module = Stranger()
    own = pruning(budget={"latency": 0.5}, selection=Selection(round_to=1))
    fit(tmp_path, module, own)
    assert own.dense.latency_ms == sum(measured[0]) == 24
    assert [sum(sizes) for sizes in measured] == [24, 18, 12]
