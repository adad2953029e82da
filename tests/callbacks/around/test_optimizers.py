"""Several optimizers, manual steps, and what interrupts an event."""

import pkgutil
import signal
from unittest import mock

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn

from seg_pruning.surgery.note import structure_of
from tests.callbacks.interrupted import GOING_ON
from tests.callbacks.modules import SkipNet, Stranger, fit, pruning, size

pytestmark = GOING_ON


class Adversarial(Stranger):
    """Generator and critic, each stepped by an optimizer of its own; the forward is the generator's."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.critic = nn.Sequential(nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Conv2d(5, 1, 3))

    def training_step(self, batch, batch_idx):
        images, masks = batch
        generator, critic = self.optimizers()
        for optimizer, sign in ((generator, -1), (critic, 1)):
            self.toggle_optimizer(optimizer)
            fake = self.critic(torch.cat([images, self(images)], 1)).mean()
            real = self.critic(torch.cat([images, masks], 1)).mean()
            optimizer.zero_grad()
            self.manual_backward(sign * (fake - real))
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self):
        return [
            torch.optim.Adam(self.net.parameters(), lr=0.01),
            torch.optim.SGD(self.critic.parameters(), lr=0.01, momentum=0.9),
        ]


@pytest.mark.parametrize("criterion", ["l2", "taylor"])
def test_two_optimizers_with_manual_steps(tmp_path, criterion):
    """The critic does not run in the forward, so that nothing of it may leave."""
    module = Adversarial()
    trainer = fit(tmp_path, module, pruning(criterion=criterion, budget={"macs": 0.5}))
    assert size(module.net) < size(SkipNet())
    assert size(module.critic) == size(Adversarial().critic)
    for optimizer in trainer.optimizers:
        for parameter, state in optimizer.state.items():
            moments = [value for value in state.values() if value.ndim]
            assert moments
            assert all(value.shape == parameter.shape for value in moments)


class OwnError(Exception):
    pass


PLACES = [
    "seg_pruning.callbacks.cutting.select",
    "seg_pruning.surgery.operation._found_now",
    "seg_pruning.surgery.operation._note_error",
    "seg_pruning.surgery.apply.remember_",
    "seg_pruning.surgery.apply.forget_sizes",
    "seg_pruning.callbacks.cutting.reset_monitors_",
    "seg_pruning.callbacks.cutting.announce",
]


def once(error: type[BaseException], place: str):
    """Fails the first time: what is put back calls the same functions."""
    works = pkgutil.resolve_name(place)
    calls = []

    def call(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            raise error
        return works(*args, **kwargs)

    return call


@pytest.mark.parametrize("error", [OwnError, KeyboardInterrupt])
@pytest.mark.parametrize("place", PLACES)
def test_an_error_in_an_event_leaves_a_network_that_can_be_trained(tmp_path, place, error):
    """Cut or not cut as a whole, with its optimizer; the next fit is like that of a new callback."""
    module, own = Stranger(), pruning()
    held = signal.getsignal(signal.SIGINT)  # Lightning switches it off as it ends
    with mock.patch(place, side_effect=once(error, place)), pytest.raises((error, SystemExit)):
        fit(tmp_path / "a", module, own)
    signal.signal(signal.SIGINT, held)
    parameters = dict(module.named_parameters())
    dense = dict(Stranger().named_parameters())
    same = [name for name, value in parameters.items() if value.shape == dense[name].shape]
    assert len(same) == len(dense) or structure_of(module) is not None
    optimizer = module.trainer.optimizers[0]
    for parameter, state in optimizer.state.items():
        assert all(value.shape == parameter.shape for value in state.values() if value.ndim)
    module(torch.zeros(2, 3, 8, 8)).mean().backward()
    optimizer.step()
    fit(tmp_path / "b", module, own)
    assert size(module) <= 0.5 * size(Stranger())


class WayOut(L.Callback):
    """Lightning's own callback of this kind goes on with its file by itself."""

    def on_exception(self, trainer, pl_module, exception):
        trainer.save_checkpoint(f"{trainer.default_root_dir}/out.ckpt")


@pytest.mark.parametrize("place", [PLACES[0], PLACES[2], PLACES[5], PLACES[6]])
def test_a_checkpoint_of_the_way_out_is_gone_on_with(tmp_path, place):
    """The only cut failed: it is made when training goes on, unless it was made before the error."""
    module, own = Stranger(), pruning(end_epoch=1)
    average = EMAWeightAveraging(decay=0.5)
    with mock.patch(place, side_effect=once(OwnError, place)), pytest.raises(OwnError):
        fit(tmp_path, module, own, WayOut(), average)
    assert size(average._average_model.module) == size(module)
    fresh, again = Stranger(), pruning(end_epoch=1)
    fit(tmp_path, fresh, again, EMAWeightAveraging(decay=0.5), ckpt_path=tmp_path / "out.ckpt")
    assert size(fresh) <= 0.5 * size(Stranger())
    assert again.done == [1]
    assert again.finished
