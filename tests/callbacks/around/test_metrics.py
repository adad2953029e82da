"""What an event leaves in the trainer's metrics and in its loggers; cuts are at epochs 1 and 3."""

import csv

import lightning as L
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from seg_pruning.callbacks import IterativePruning, Schedule
from tests.callbacks.interrupted import GOING_ON
from tests.callbacks.modules import Stranger, fit, pruning, size

pytestmark = GOING_ON


class Looks(L.Callback):
    """What stands in the metrics at each end of a batch, beside the truth."""

    def __init__(self) -> None:
        self.logged: list[float] = []
        self.sizes: list[int] = []
        self.numbers: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        assert trainer.callback_metrics["prune/params"] == trainer.logged_metrics["prune/params"]
        self.logged.append(float(trainer.logged_metrics["prune/params"]))
        self.numbers.append(float(trainer.logged_metrics.get("prune/step", 0)))
        self.sizes.append(size(pl_module))


def by_step() -> IterativePruning:
    schedule = Schedule("linear", start_step=4, every_n_steps=4, end_step=8)
    return IterativePruning(budget={"params": 0.5}, criterion="l2", schedule=schedule)


def rows(folder) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row.get("prune/step")]


@pytest.mark.parametrize("loggers", [0, 1, 2])
@pytest.mark.parametrize(("own", "at"), [(pruning, [3, 9]), (by_step, [4, 8])], ids=["epochs", "steps"])
def test_metrics_say_the_present_size_and_each_logger_gets_an_event_once(tmp_path, own, at, loggers):
    looks, module = Looks(), Stranger()
    folders = [tmp_path / str(number) for number in range(loggers)]
    logger = [CSVLogger(folder, name="", version="") for folder in folders]
    trainer = fit(tmp_path, module, own(), looks, logger=logger or False)
    assert looks.logged == looks.sizes
    assert looks.numbers == [float(sum(step >= first for first in at)) for step in range(15)]
    assert float(trainer.logged_metrics["prune/params"]) == size(module)
    for folder in folders:
        found = [(row["prune/step"], row["step"]) for row in rows(folder)]
        assert found == [("1", str(at[0])), ("2", str(at[1]))]


def test_files_are_named_and_chosen_by_them(tmp_path):
    saver = ModelCheckpoint(
        tmp_path / "c", filename="{epoch}-{prune/params:.0f}", monitor="prune/params", save_top_k=-1
    )
    fit(tmp_path, Stranger(), pruning(), saver)
    sizes = [int(name.split("=")[-1].removesuffix(".ckpt")) for name in sorted(saver.best_k_models)]
    assert sizes == [int(value) for value in map(float, saver.best_k_models.values())]
    assert len(set(sizes)) == 1  # since the last cut


class Bounded(Stranger):
    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.log("val/dice", 0.9 if size(self) == size(Stranger()) else 0.5)


def test_after_a_cut_was_taken_back_they_say_the_size_of_before(tmp_path):
    looks = Looks()
    budget = {"params": 0.5, "min": {"val/dice": 0.8}}
    trainer = fit(tmp_path, Bounded(), pruning(budget=budget, end_epoch=1), looks, max_epochs=3)
    assert looks.logged == looks.sizes
    assert trainer.logged_metrics["prune/params"] == size(Stranger()) == size(trainer.lightning_module)
    assert float(trainer.logged_metrics["prune/taken_back"]) == 1
