"""Scores in a pass over batches that training has just seen; the first cut is at epoch 1, after 3 batches."""

import lightning as L
import pytest
import torch
from torch import nn

from seg_pruning.callbacks import Scoring
from seg_pruning.pruning.criteria import Activation, Criterion, Taylor
from seg_pruning.pruning.score import score
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.trial import trace
from tests.callbacks.interrupted import GOING_ON, assert_goes_on
from tests.callbacks.modules import Stranger, fit, pruning, size

pytestmark = GOING_ON


def loss(output, batch):
    return nn.functional.binary_cross_entropy_with_logits(output, batch[1])


class Seen(L.Callback):
    """Named before the pruning: what the network was called with, and the network just before the cut."""

    def __init__(self) -> None:
        self.calls: list[tuple[torch.Tensor, tuple[torch.Tensor, ...]]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batch = batch

    def on_fit_start(self, trainer, pl_module):
        pl_module.net.register_forward_pre_hook(self.see)

    def see(self, module, args):
        if torch.is_grad_enabled() and module.training and not hasattr(self, "state"):
            self.calls.append((args[0].detach().clone(), self.batch))

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            self.state = {name: value.clone() for name, value in pl_module.state_dict().items()}


CRITERIA = {
    "weights and a loss": (lambda: Taylor(), loss),
    "outputs and a loss": (lambda: Taylor(of="activation", form="abs", normalise=True), loss),
    "outputs, no labels": (lambda: Taylor(of="activation", gradient="random"), None),
    "outputs alone": (lambda: Activation(), None),
}


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("batches", [2, 9])
def test_scores_are_of_the_last_batches(tmp_path, monkeypatch, name, batches):
    make, own_loss = CRITERIA[name]
    own = pruning(criterion=Scoring(make(), batches=batches, loss=own_loss), end_epoch=1)
    found = []
    compute = own.scores.compute
    monkeypatch.setattr(own.scores, "compute", lambda *a, **k: found.append(compute(*a, **k)) or found[-1])
    module, seen = Stranger(), Seen()
    fit(tmp_path, module, seen, own, max_epochs=2)
    twin = Stranger()
    twin.load_state_dict(seen.state)
    graph = trace(twin, torch.rand(1, 3, 8, 8))
    last = seen.calls[-batches:]
    assert len(last) == min(batches, 3)
    data = last if own_loss else [images for images, _ in last]
    expected = score(graph, twin, make(), data=data, loss=own_loss)
    assert expected.keys() == found[0].keys()
    for group, values in expected.items():
        torch.testing.assert_close(found[0][group], values)
    assert size(module) < size(twin)


def test_an_interrupted_run_goes_on_to_the_bit(tmp_path):
    """The batches of before the cut are in the checkpoint."""

    def own() -> list[L.Callback]:
        return [pruning(criterion=Scoring(Taylor(of="activation"), batches=2, loss=loss))]

    assert_goes_on(tmp_path, own, epoch=2, max_epochs=4)


@pytest.mark.parametrize(
    ("criterion", "batches", "message"),
    [
        (Taylor(of="activation"), 0, r"needs a pass of its own.*batches=8"),
        (Taylor(of="activation"), 4, r"needs a loss: give Scoring\(loss="),
        (Taylor(), 4, r"needs a loss: give Scoring\(loss="),
    ],
)
def test_what_is_missing_is_said_at_once(criterion, batches, message):
    assert isinstance(criterion, Criterion)
    with pytest.raises(PruningError, match=message):
        pruning(criterion=Scoring(criterion, batches=batches))
