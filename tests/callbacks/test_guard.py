"""A floor on the metric, on a task where it is reached: the metric follows from the size of the network."""

import csv
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from seg_pruning.callbacks import IterativePruning
from seg_pruning.callbacks.pareto import TABLE
from seg_pruning.surgery.errors import PruningError
from tests.callbacks.interrupted import GOING_ON, assert_equal, assert_goes_on
from tests.callbacks.modules import Data, Stranger, fit, size

pytestmark = GOING_ON
DENSE = size(Stranger())


class Graded(Stranger):
    """Its Dice is 0.9 as long as it has `enough` parameters, and 0.5 with fewer."""

    enough = 600

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.log("val/dice", 0.9 if size(self) >= self.enough else 0.5)


def guarded(**options) -> IterativePruning:
    """Planned are about 870, 770, 670, 580, 480 of 967 parameters, one epoch apart, from epoch 1 on."""
    settings = {"schedule": "linear", "criterion": "l2", "start_epoch": 1, "end_epoch": 5}
    budget = {"params": 0.5, "max_drop": {"val/dice": 0.05}}
    return IterativePruning(**{"budget": budget, **settings, **options})


class Sizes(L.Callback):
    def __init__(self) -> None:
        self.epochs: list[int] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 2:
            self.epochs.append(size(pl_module))


@pytest.mark.parametrize("criterion", ["l2", "taylor"])
def test_it_ends_at_the_smallest_network_that_keeps_the_promise(tmp_path, criterion):
    module, sizes, own = Graded(), Sizes(), guarded(criterion=criterion)
    best = ModelCheckpoint(tmp_path / "c", monitor="val/dice", mode="max", save_last=True)
    trainer = fit(tmp_path, module, own, sizes, best, max_epochs=14)
    assert sizes.epochs[0] == DENSE
    assert min(sizes.epochs) < module.enough  # it was tried
    assert own.finished
    assert size(module) == min(epoch for epoch in sizes.epochs if epoch >= module.enough)
    assert sizes.epochs[-1] == sizes.epochs[-2] == size(module) < 670  # training went on with it
    assert 600 <= size(module) < 600 + 60
    with (tmp_path / "metrics.csv").open() as file:
        taken_back = [row["prune/step"] for row in csv.DictReader(file) if row.get("prune/taken_back")]
    assert taken_back
    assert taken_back[0] == str(1 + sum(epoch >= 600 for epoch in sizes.epochs[1:4]))
    found = trainer.test(module, Data(), ckpt_path="best", verbose=False)
    assert found[0]["val/params"] == size(module)


def test_no_cut_breaks_it(tmp_path):
    module, own = Graded(), guarded()
    module.enough = 0
    fit(tmp_path, module, own, max_epochs=8)
    assert own.finished
    assert own.done == [1, 2, 3, 4, 5, 6]  # at 6 the last one is judged
    assert 0.5 * DENSE - 150 < size(module) <= 0.5 * DENSE


class Compare(L.Callback):
    """Notes the training at the start of an epoch: before a cut or after it, as it is named."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            self.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}
            self.optimizer = torch.utils._pytree.tree_map(
                lambda v: v.clone() if isinstance(v, torch.Tensor) else v, trainer.optimizers[0].state_dict()
            )
            self.scheduler = dict(trainer.lr_scheduler_configs[0].scheduler.state_dict())
            self.objects = [id(parameter) for parameter in pl_module.parameters()]


def test_what_is_taken_back_is_what_was_there_before_the_cut(tmp_path):
    """The fourth cut, at epoch 4, breaks it; from epoch 5 on nothing more is tried."""
    module, own = Graded(), guarded()
    before, after = Compare(4), Compare(5)

    class NoMore(IterativePruning):
        def _cut_(self, trainer, module, limit):
            if trainer.current_epoch < 5:
                super()._cut_(trainer, module, limit)

    own.__class__ = NoMore
    fit(tmp_path, module, before, own, after, max_epochs=6)
    assert_equal(before.weights, after.weights)
    assert_equal(before.optimizer, after.optimizer)
    assert_equal(before.scheduler, after.scheduler)
    assert before.objects == after.objects


def test_what_is_not_shown_by_the_end_is_taken_back(tmp_path):
    """Training ends right after the cut that breaks the promise."""
    module, sizes = Graded(), Sizes()
    module.enough = 500
    saver = ModelCheckpoint(tmp_path / "c", save_last=True)
    trainer = fit(tmp_path, module, guarded(end_epoch=4), sizes, saver, max_epochs=5)
    assert sizes.epochs[-1] < module.enough < size(module) == sizes.epochs[-2]
    trainer.test(module, Data(), ckpt_path="last", verbose=False)
    assert size(module) == sizes.epochs[-2]


@pytest.mark.parametrize("after", [1, 4, 5, 6, 8])
def test_an_interrupted_run_goes_on_to_the_bit(tmp_path, after):
    """The cut of epoch 4 is taken back at epoch 5; smaller steps follow."""

    def own() -> list[L.Callback]:
        return [guarded(criterion="taylor")]

    assert_goes_on(tmp_path, own, epoch=after, module=Graded, max_epochs=11)


class Rollbacks(L.Callback):
    """Which networks to go back to are in files, after each epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.epochs: list[list[int]] = []

    def on_train_epoch_end(self, trainer, pl_module):
        files = self.folder.glob("rollback-*.ckpt")
        self.epochs.append(sorted(int(file.stem.removeprefix("rollback-")) for file in files))


def test_the_newest_checkpoint_finds_what_it_goes_back_to_however_old_it_is(tmp_path):
    """Checkpoints are after epochs 2 and 5, cuts before epochs 1 to 5."""

    def saver() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path, filename="{epoch}", every_n_epochs=3, save_top_k=-1)

    module, files = Graded(), Rollbacks(tmp_path)
    module.enough = 0
    fit(tmp_path, module, guarded(), files, saver(), max_epochs=6)
    assert files.epochs == [[], [1], [1, 2], [2, 3], [2, 3, 4], [2, 3, 4, 5]]
    fit(tmp_path, Graded(), guarded(), saver(), max_epochs=6, ckpt_path=tmp_path / "epoch=2.ckpt")


@pytest.mark.filterwarnings("ignore:nothing is pruned:UserWarning")
def test_a_dense_network_below_the_floor_is_left_alone(tmp_path):
    module = Graded()
    module.enough = 10_000
    own = guarded(budget={"params": 0.5, "min": {"val/dice": 0.8}})
    fit(tmp_path, module, own, max_epochs=6)
    assert own.finished
    assert size(module) == DENSE


@pytest.mark.filterwarnings("ignore:nothing is pruned:UserWarning")
@pytest.mark.parametrize("budget", [{"max_drop": {"val/dice": 0.05}}, {"min": {"val/dice": 0.95}}])
def test_a_network_that_stayed_dense_goes_on_dense(tmp_path, budget):
    """Every cut is taken back, or the dense network is below the floor: both are known after a restart."""

    def go(own, epochs, **options):
        module = Graded()
        module.enough = DENSE
        fit(tmp_path, module, own, max_epochs=epochs, **options)
        return module

    settings = {"budget": {"params": 0.5, **budget}, "end_epoch": 2}
    first, later = guarded(**settings), guarded(**settings)
    go(first, 8)
    module = go(later, 10, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert later.done == first.done
    assert later.finished
    assert size(module) == DENSE


def test_what_stayed_dense_says_nothing_of_another_network(tmp_path):
    module, own = Graded(), guarded(end_epoch=2)
    module.enough = DENSE
    fit(tmp_path / "a", module, own, max_epochs=8)
    other = Graded()
    other.enough = 0
    fit(tmp_path / "b", other, own, max_epochs=8)
    assert size(other) <= 0.5 * DENSE


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        ({"budget": {"params": 0.5, "min": {"val/dise": 0.1}}}, {}, "val/dise, which .* it .*val/dice"),
        ({}, {"check_val_every_n_epoch": 3}, "needs a validation of the dense network before"),
    ],
)  # fmt: skip
def test_a_metric_that_is_not_there(tmp_path, options, settings, message):
    with pytest.raises(PruningError, match=message):
        fit(tmp_path, Graded(), guarded(**options), max_epochs=6, **settings)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / TABLE).open() as file:
        return list(csv.DictReader(file))


class Uneven(Graded):
    """Its Dice also goes up and down with the epoch: the best of a size is not the last."""

    def validation_step(self, batch, batch_idx):
        Stranger.validation_step(self, batch, batch_idx)
        self.log("val/dice", 0.9 if self.current_epoch % 3 == 0 else 0.8)


@pytest.mark.parametrize("monitored", [True, False])
def test_the_best_of_every_size_is_kept(tmp_path, monitored):
    """Cuts at epochs 2 and 5: the best epochs of the three sizes are 0, 3 and 6, the last ones 1, 4 and 7."""
    saver = (
        ModelCheckpoint(tmp_path, monitor="val/dice", mode="max") if monitored else ModelCheckpoint(tmp_path)
    )
    own = guarded(start_epoch=2, every_n_epochs=3, budget={"params": 0.5})
    module = Uneven()
    fit(tmp_path, module, own, saver, max_epochs=8)
    table = rows(tmp_path)
    assert [row["size"] for row in table] == ["0", "1", "2"]
    params = [int(row["params"]) for row in table]
    assert params[0] == DENSE > params[1] > params[2] == size(module)
    names = [Path(row["path"]).name for row in table]
    assert names == (
        ["dense.ckpt", "size-1-epoch=3-step=12.ckpt", "size-2-epoch=6-step=21.ckpt"]
        if monitored
        else ["dense.ckpt", "size-1-epoch=4-step=15.ckpt", "size-2-epoch=7-step=24.ckpt"]
    )
    assert sorted(path.name for path in tmp_path.glob("size-*")) == names[1:]
    for row in table:
        state = torch.load(row["path"], weights_only=True)["state_dict"]
        held = sum(state[name].numel() for name, _ in module.named_parameters())
        assert held == int(row["params"])
        assert (
            row["metric"] == ""
            if not monitored
            else float(row["metric"]) == pytest.approx(0.9 if row["size"] != "0" else 0.8)
        )
