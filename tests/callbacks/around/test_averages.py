"""Averaged copies of the weights; cuts are at epochs 1 and 3."""

from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)
from torch import nn
from torch.optim.swa_utils import AveragedModel

from seg_pruning.callbacks import Recovery, Schedule, snapshot
from seg_pruning.callbacks.averages import averages_of
from tests.callbacks.interrupted import GOING_ON, assert_equal, assert_goes_on
from tests.callbacks.modules import Data, SkipNet, Stranger, fit, pruning, size, trainer_in

pytestmark = [
    *GOING_ON,
    pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*WeightAveraging callback, but loading a checkpoint:UserWarning"),
]


class OwnAverage(L.Callback):
    """As it was written before Lightning had one: of a part of the module, by torch's class."""

    def setup(self, trainer, pl_module, stage):
        self.average = AveragedModel(pl_module.net)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.average.update_parameters(pl_module.net)


class Inside(Stranger):
    """The average is a part of the module, and of its checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.average = AveragedModel(self.net)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.average.update_parameters(self.net)


AVERAGING = {
    "ema": partial(EMAWeightAveraging, decay=0.5),
    "mean": partial(WeightAveraging, use_buffers=False),
    "swa": partial(StochasticWeightAveraging, swa_lrs=0.01, swa_epoch_start=2),
    "own": OwnAverage,
}


def copy_and_original(trainer, module):
    if isinstance(module, Inside):
        return module.average.module, module.net
    kinds = (WeightAveraging, StochasticWeightAveraging, OwnAverage)
    own = next(callback for callback in trainer.callbacks if isinstance(callback, kinds))
    if isinstance(own, OwnAverage):
        return own.average.module, module.net
    return getattr(own._average_model, "module", own._average_model), module


class Triple(L.Callback):
    """Listed before the cuts: makes the average three times the weights."""

    def on_train_epoch_start(self, trainer, pl_module):
        copy, original = copy_and_original(trainer, pl_module)
        for name, tensor in original.state_dict().items():
            copy.state_dict()[name].copy_(3 * tensor)


class StillTriple(L.Callback):
    """Listed after them."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def on_train_epoch_start(self, trainer, pl_module):
        copy, original = copy_and_original(trainer, pl_module)
        held = copy.state_dict()
        assert all(torch.equal(held[name], 3 * tensor) for name, tensor in original.state_dict().items())
        self.sizes.append(size(copy))
        with torch.no_grad():
            copy(torch.zeros(1, 3, 8, 8))  # its layers say the same widths


@pytest.mark.parametrize("kind", [*AVERAGING, "inside"])
def test_kept_are_the_same_channels_of_the_average(tmp_path, kind):
    """Were its values those of the weights, or of other channels, they would not be three times them."""
    module = Inside() if kind == "inside" else Stranger()
    own = [] if kind == "inside" else [AVERAGING[kind]()]
    after = StillTriple()
    fit(tmp_path, module, Triple(), pruning(budget={"macs": 0.5}), after, *own)
    assert after.sizes[0] > after.sizes[1] == after.sizes[2] > after.sizes[3]
    copy, original = copy_and_original(module.trainer, module)
    assert size(copy) == size(original)


@pytest.mark.parametrize("kind", AVERAGING)
def test_an_average_that_is_not_followed_would_end_the_training(tmp_path, kind, monkeypatch):
    """The test above shows something only if shapes are not right by themselves."""
    monkeypatch.setattr("seg_pruning.callbacks.averages.averages_of", lambda trainer: [])
    with pytest.raises(RuntimeError, match="size of tensor"):
        fit(tmp_path, Stranger(), pruning(), AVERAGING[kind]())


class Ends(L.Callback):
    """The averaged weights after the last step; each step is one epoch of three."""

    def on_train_epoch_end(self, trainer, pl_module):
        copy, _ = copy_and_original(trainer, pl_module)
        self.held = {name: tensor.clone() for name, tensor in copy.state_dict().items()}


@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("kind", ["ema", "mean"])
def test_training_ends_with_the_average(tmp_path, kind, position):
    module, own, ends = Stranger(), AVERAGING[kind](), Ends()
    parts = [pruning(), own] if position == "after" else [own, pruning()]
    fit(tmp_path, module, *parts, ends)
    assert size(module) <= 0.5 * size(Stranger())
    assert_equal(dict(module.state_dict()), ends.held)


@pytest.mark.parametrize(("epoch", "position"), [(0, "after"), (2, "before"), (2, "after"), (4, "before")])
@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_a_run_with_averages_goes_on_to_the_bit(tmp_path, kind, epoch, position):
    """The averages too: the training ends with them."""

    def own():
        parts = [pruning(criterion="taylor"), AVERAGING[kind]()]
        return parts if position == "after" else parts[::-1]

    resumed = assert_goes_on(tmp_path, own, epoch=epoch, max_epochs=6)
    assert size(resumed.lightning_module) <= 0.5 * size(Stranger())


class Back(L.Callback):
    """Takes the training back to before the cut of epoch 1, when epoch 2 starts."""

    def on_train_epoch_start(self, trainer, pl_module):
        copy, _ = copy_and_original(trainer, pl_module)
        if trainer.current_epoch == 1:
            self.taken = snapshot.take(trainer, pl_module, {})
            self.before = {name: tensor.clone() for name, tensor in copy.state_dict().items()}
            self.count = [int(average.count or 0) for average in averages_of(trainer)]
        if trainer.current_epoch == 2:
            assert size(copy) < size(Stranger())
            snapshot.restore_(trainer, pl_module, self.taken)
            assert_equal(dict(copy.state_dict()), self.before)
            assert [int(average.count or 0) for average in averages_of(trainer)] == self.count


@pytest.mark.parametrize("kind", AVERAGING)
def test_a_cut_that_is_taken_back_is_taken_back_there_too(tmp_path, kind):
    module = Stranger()
    fit(tmp_path, module, Back(), pruning(end_epoch=1), AVERAGING[kind]())
    copy, original = copy_and_original(module.trainer, module)
    assert size(copy) == size(original) == size(Stranger())  # and it was averaged on, to the end


class Graded(Stranger):
    """Keeps the promise as long as it has 600 parameters."""

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.log("val/dice", 0.9 if size(self) >= 600 else 0.5)


@pytest.mark.parametrize("position", ["before", "after"])
def test_a_promise_that_breaks_at_the_end(tmp_path, position):
    """The last network is that of before the cut: its average, in the module and in the last file."""
    own = pruning(budget={"params": 0.5, "min": {"val/dice": 0.8}}, start_epoch=2, end_epoch=2)
    parts, saver = [own, AVERAGING["ema"]()], ModelCheckpoint(tmp_path / "c", save_last=True)
    module = Graded()
    fit(tmp_path, module, *(parts if position == "after" else parts[::-1]), saver, max_epochs=3)
    assert size(module) == size(Stranger())
    copy, _ = copy_and_original(module.trainer, module)
    assert_equal(dict(module.state_dict()), dict(copy.state_dict()))
    assert_equal(
        torch.load(saver.last_model_path, weights_only=True)["state_dict"], dict(module.state_dict())
    )


class Loss(Stranger):
    def validation_step(self, batch, batch_idx):
        self.log("val/loss", nn.functional.binary_cross_entropy_with_logits(self(batch[0]), batch[1]))


@pytest.mark.parametrize("position", ["before", "after"])
def test_the_file_of_each_size_holds_what_was_validated(tmp_path, position):
    """The oracle is a validation of the file by itself."""
    own = pruning(budget={"macs": 0.5})
    saver = ModelCheckpoint(tmp_path / "c", monitor="val/loss")
    parts = [own, AVERAGING["ema"]()]
    fit(tmp_path, Loss(), *(parts if position == "after" else parts[::-1]), saver)
    assert list(own.points) == [0, 1, 2]
    for point in own.points.values():
        trainer = trainer_in(tmp_path, [pruning()], logger=False)
        found = trainer.validate(Loss(), Data(), ckpt_path=point.path, verbose=False)
        assert found[0]["val/loss"] == pytest.approx(point.metric, rel=1e-6)


class Taught(Stranger):
    """A student and a teacher that are alike; only the student is averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = self.net, SkipNet()
        self.teacher.requires_grad_(False)
        del self.net

    def forward(self, images):
        return self.student(images)


class StudentAverage(L.Callback):
    def setup(self, trainer, pl_module, stage):
        self.average = AveragedModel(pl_module.student)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.average.update_parameters(pl_module.student)


@pytest.mark.parametrize("average", [AVERAGING["ema"], StudentAverage])
def test_one_network_of_two_that_are_alike(tmp_path, average):
    module, own = Taught(), average()
    fit(tmp_path, module, pruning(module="student"), own)
    assert size(module.student) < size(module.teacher) == size(SkipNet())
    copy = own.average.module if average is StudentAverage else own._average_model.module.student
    assert size(copy) == size(module.student)
    fresh = Taught()
    file = tmp_path / "checkpoints" / "epoch=2.ckpt"
    fit(tmp_path, fresh, pruning(module="student"), average(), ckpt_path=file)
    assert size(fresh) == size(module)


@pytest.mark.parametrize(("recovery", "kept"), [(Recovery(rewind="weights"), True), (Recovery(), False)])
def test_averages_begin_anew_where_weights_are_rewound(tmp_path, recovery, kept):
    class Same(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                copy, original = copy_and_original(trainer, pl_module)
                values = copy.state_dict()
                self.equal = all(torch.equal(values[n], v) for n, v in original.state_dict().items())

    same = Same()
    own = pruning(schedule=Schedule("linear", recovery=recovery))
    fit(tmp_path, Stranger(), own, same, AVERAGING["ema"]())
    assert same.equal is kept


class Means(L.Callback):
    """What the first norm of the average should know after a cut: of batches since, by averaged weights."""

    def __init__(self) -> None:
        self.looked: list[int] = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.seen: list[torch.Tensor] = []
        if trainer.current_epoch == 0:
            pl_module.net.register_forward_pre_hook(self.see)

    def see(self, net, args):
        if torch.is_grad_enabled():
            self.seen.append(args[0])

    def on_validation_end(self, trainer, pl_module):
        if trainer.sanity_checking:
            return
        copy, original = copy_and_original(trainer, pl_module)
        for module in (copy, original):
            means = [module.net.first[0](images).mean((0, 2, 3)) for images in self.seen]
            found = module.net.first[1].running_mean
            same = torch.allclose(torch.stack(means).mean(0), found, atol=1e-6)
            assert same is (trainer.current_epoch in (1, 3))
            self.looked.append(trainer.current_epoch)


@pytest.mark.parametrize("position", ["before", "after"])
def test_statistics_of_the_average_are_estimated_anew_too(tmp_path, position):
    parts = [pruning(), AVERAGING["ema"]()]
    means = Means()
    fit(tmp_path, Stranger(), *(parts if position == "after" else parts[::-1]), means)
    assert means.looked == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]  # the average and the network, after each epoch
