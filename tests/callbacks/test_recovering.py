"""What `Recovery` does in a training; there are three batches in an epoch, and one cut, at epoch 1."""

import copy

import lightning as L
import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from seg_pruning.callbacks import Recovery, Schedule
from seg_pruning.pruning.compensation import compensation
from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.note import structure_of
from seg_pruning.surgery.trial import trace
from tests.callbacks.interrupted import GOING_ON, assert_goes_on
from tests.callbacks.modules import Data, Stranger, fit, pruning, size

pytestmark = GOING_ON


def recovering(**options):
    cuts = {name: options.pop(name) for name in list(options) if name in ("end_epoch", "criterion", "budget")}
    return pruning(schedule=Schedule("linear", recovery=Recovery(**options)), **{"end_epoch": 1, **cuts})


class Norms(L.Callback):
    """Statistics at the end of each training batch and at each validation, and what the network was given."""

    def __init__(self) -> None:
        self.trained: dict[int, torch.Tensor] = {}
        self.validated: dict[int, torch.Tensor] = {}
        self.images: list[torch.Tensor] = []

    def on_fit_start(self, trainer, pl_module):
        pl_module.net.first.register_forward_pre_hook(self.see)

    def see(self, module, args):
        if module.training:
            self.images.append(args[0].detach().clone())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.trained[trainer.current_epoch] = pl_module.net.first[1].running_mean.clone()

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.validated[trainer.current_epoch] = pl_module.net.first[1].running_mean.clone()


@pytest.mark.parametrize("batches", [0, 2, 16])
def test_statistics_are_new_at_the_first_validation_after_the_cut(tmp_path, batches):
    """The oracle: the mean of what the first convolution, as it is now, makes of the last batches."""
    module, norms = Stranger(), Norms()
    fit(tmp_path, module, recovering(recalibrate=batches), norms, max_epochs=2)
    assert torch.equal(norms.trained[0], norms.validated[0])
    if not batches:
        assert torch.equal(norms.trained[1], norms.validated[1])
        return
    last = norms.images[-min(batches, 3) :]
    expected = torch.stack([module.net.first[0](image).mean((0, 2, 3)) for image in last]).mean(0)
    torch.testing.assert_close(norms.validated[1], expected)
    assert not torch.allclose(norms.trained[1], expected, atol=1e-3)


def test_without_a_validation_they_are_new_at_the_end_of_the_epoch(tmp_path):
    module, norms = Stranger(), Norms()
    fit(tmp_path, module, recovering(recalibrate=3), norms, max_epochs=2, limit_val_batches=0)
    expected = torch.stack([module.net.first[0](i).mean((0, 2, 3)) for i in norms.images[-3:]]).mean(0)
    torch.testing.assert_close(module.net.first[1].running_mean, expected)


class Parts(Stranger):
    """Never calls itself, only its network."""

    def training_step(self, batch, batch_idx):
        images, masks = batch
        return torch.nn.functional.binary_cross_entropy_with_logits(self.net(images), masks)


def test_a_module_that_calls_only_its_parts(tmp_path):
    module, norms = Parts(), Norms()
    fit(tmp_path, module, recovering(recalibrate=3), norms, max_epochs=2)
    assert not torch.equal(norms.trained[1], norms.validated[1])


class Rates(L.Callback):
    """How far a weight would have moved, and the rate between steps; for SGD without momentum."""

    def __init__(self) -> None:
        self.moved: list[float] = []
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.before = pl_module.net.head.bias.detach().clone()
        self.slope = pl_module.net.head.bias.grad.clone()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.moved.append(float((self.before - pl_module.net.head.bias.detach()) / self.slope))
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


class Plain(Stranger):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]


def test_the_rate_climbs_after_each_cut_and_the_scheduler_does_not_notice(tmp_path):
    rates = Rates()
    fit(tmp_path, Plain(), recovering(rewarm=4, end_epoch=3), rates, max_epochs=5)
    factors = [1, 1, 1, 0.25, 0.5, 0.75, 1, 1, 1, 0.25, 0.5, 0.75, 1, 1, 1]
    scheduled = [0.05 * 0.9 ** (batch // 3) for batch in range(15)]
    expected = [rate * factor for rate, factor in zip(scheduled, factors, strict=True)]
    assert rates.moved == pytest.approx(expected, rel=1e-3)
    # Lightning steps the scheduler just before the last batch of an epoch ends.
    assert rates.rates == pytest.approx([0.05 * 0.9 ** ((batch + 1) // 3) for batch in range(15)])


class AtCut(L.Callback):
    """Named after the pruning: what is there right after the cut of epoch 1; and what was there before."""

    def __init__(self) -> None:
        self.states: dict[int, dict[str, torch.Tensor]] = {}
        self.rates: dict[int, float] = {}
        self.moments: dict[int, int] = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        step = trainer.global_step
        self.states[step] = {name: value.clone() for name, value in pl_module.state_dict().items()}
        self.rates[step] = trainer.optimizers[0].param_groups[0]["lr"]
        self.moments[step] = len(trainer.optimizers[0].state)


def kept_of(early: dict[str, torch.Tensor], module: Stranger) -> dict[str, torch.Tensor]:
    """The early state of the channels that are kept, sliced by hand."""
    (plan,) = structure_of(module).plans
    wide = {"net.first.0": 6, "net.down.0": 12, "net.last": 6}
    first, down, last = (torch.tensor(plan.kept.get(name, range(wide[name]))) for name in wide)
    joined = torch.cat([first, 6 + down])
    found = {}
    for name, value in early.items():
        if value.ndim and name.startswith(("net.first", "net.down", "net.last")):
            value = value[{"first": first, "down": down, "last": last}[name.split(".")[1]]]
        inputs = {"net.down.0.weight": first, "net.last.weight": joined, "net.head.weight": last}.get(name)
        found[name] = value if inputs is None else value[:, inputs]
    return found


@pytest.mark.parametrize(("to", "step"), [(0, 0), (2, 2), (99, 3)])
def test_kept_weights_and_the_rate_go_back(tmp_path, to, step):
    """Cuts at epochs 1 and 3, before the optimizer steps 3 and 9."""
    module, seen = Stranger(), AtCut()
    fit(tmp_path, module, recovering(rewind="weights", rewind_to=to, end_epoch=3), seen, max_epochs=4)
    early = seen.states[step] if step < 3 else torch.load(
        tmp_path / "checkpoints" / "epoch=0.ckpt", weights_only=True
    )["state_dict"]  # fmt: skip
    expected = kept_of(early, module)
    assert {n: v.shape for n, v in expected.items()} == {n: v.shape for n, v in seen.states[9].items()}
    assert all(torch.equal(value, seen.states[9][name]) for name, value in expected.items())
    assert (seen.moments[2], seen.moments[3], seen.moments[9]) == (len(list(module.parameters())), 0, 0)
    assert seen.rates[9] == seen.rates[step] == (0.01 if step < 3 else pytest.approx(0.009))


def test_the_rate_alone_goes_back(tmp_path):
    module, seen = Stranger(), AtCut()
    fit(tmp_path, module, recovering(rewind="lr", budget={"params": 1.0}), seen, max_epochs=3)
    assert seen.rates[6] == pytest.approx(0.0081)  # nothing was removed: nothing to recover from
    module, seen = Stranger(), AtCut()
    fit(tmp_path, module, recovering(rewind="lr"), seen, max_epochs=3)
    assert [seen.rates[step] for step in (2, 3, 6)] == pytest.approx([0.01, 0.01, 0.009])
    assert seen.moments[3] == len(list(module.parameters()))
    dense = torch.load(tmp_path / "checkpoints" / "dense.ckpt", weights_only=True)["state_dict"]
    expected = kept_of(dense, module)
    assert all(torch.equal(value, seen.states[3][name]) for name, value in expected.items())


class Dense(L.Callback):
    """Named before the pruning: the network that is about to be cut at epoch 1."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            self.net = copy.deepcopy(pl_module.net)


@pytest.mark.parametrize("batches", [0, 2])
def test_the_last_batches_before_a_cut_make_up_for_it(tmp_path, batches):
    module, dense, norms, seen = Stranger(), Dense(), Norms(), AtCut()
    fit(tmp_path, module, dense, norms, recovering(recalibrate=0, compensate=batches), seen, max_epochs=2)
    graph = trace(dense.net, norms.images[0])
    cut = graph.cut(structure_of(module.net).plans[0])
    found = compensation(dense.net, cut, map(Inputs.of, norms.images[3 - batches : 3]))
    assert set(found) == (
        {"down.0.weight", "last.weight", "last.bias", "head.weight", "head.bias"} if batches else set()
    )
    for name, value in dense.net.named_parameters():
        expected = cut.tensor(name, value + found.get(name, 0))
        torch.testing.assert_close(seen.states[3][f"net.{name}"], expected.detach().float())


@pytest.mark.parametrize("step", [4, 7])
@pytest.mark.parametrize(
    "options",
    [
        {"recalibrate": 3},
        {"compensate": 3},
        {"rewarm": 5},
        {"rewind": "weights", "rewind_to": 1},
        {"rewind": "lr"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_an_interrupted_recovery_goes_on_to_the_bit(tmp_path, options, step):
    assert_goes_on(tmp_path, lambda: [recovering(**options, end_epoch=2)], step=step, max_epochs=4)


def test_momentum_and_size_are_what_they_were(tmp_path):
    module = Stranger()
    dense = size(module)
    fit(tmp_path, module, recovering(recalibrate=2, rewarm=2, rewind="weights"))
    assert all(m.momentum == 0.1 for m in module.modules() if isinstance(m, _BatchNorm))
    assert size(module) <= 0.5 * dense


@pytest.mark.parametrize(
    ("settings", "recorded"),
    [
        ({}, [0, 1, 4, 5]),
        ({"val_check_interval": 0.5}, [0, 1, 2, 4, 5]),
        ({"val_check_interval": 3}, [0, 1, 2, 4, 5]),
        ({"limit_val_batches": 0}, [0, 1, 4, 5]),
        ({"limit_train_batches": 4}, [0, 1, 2, 3]),
        ({"max_steps": 12}, [0, 1, 4, 5]),
        ({"val_check_interval": 4, "check_val_every_n_epoch": None}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_only_the_first_batches_and_the_last_before_a_validation_are_looked_at(tmp_path, settings, recorded):
    """The cut is at the start of the second epoch; of six batches the last two are kept."""
    own, seen = recovering(recalibrate=2), []
    begin = own.recovering.recorder.begin

    def watch(*, record: bool) -> None:
        if record and trainers[0].current_epoch == 1:
            seen.append(trainers[0].fit_loop.epoch_loop.batch_progress.current.ready - 1)
        begin(record=record)

    class Take(L.Callback):
        def on_train_start(self, trainer, pl_module):
            trainers.append(trainer)

    trainers: list[L.Trainer] = []
    own.recovering.recorder.begin = watch
    own.recovering.recalibrate_ = lambda trainer, module: None  # so that it stays stale all the time
    fit(tmp_path, Stranger(), Take(), own, data=Data(12), max_epochs=2, **settings)
    assert seen == recorded


def test_a_training_that_is_told_to_stop_is_validated_with_statistics_that_are_not_stale(tmp_path):
    """In the middle of the epoch of a cut, where nobody can have known which batches are the last."""

    class Stop(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = trainer.current_epoch == 1 and batch_idx == 4

    own = recovering(recalibrate=2)
    trainer = fit(tmp_path, Stranger(), Stop(), own, data=Data(24))
    assert trainer.global_step == 12 + 5
    assert not own.recovering.stale
