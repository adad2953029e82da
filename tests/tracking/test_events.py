import csv

import lightning as L
import pytest
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from pytorch_lightning.loggers import WandbLogger as OtherLogger

from seg_pruning import tracking
from seg_pruning.tasks import SemanticSegmentation
from tests.tasks.tiny import TinyData, TinyNet
from tests.tracking.offline_run import read_offline_run

CONFIG = {
    "model": {"arch": "unet", "encoder_weights": None},
    "trainer": {"max_epochs": 2},
    "long": "x" * 70_000,
}
SUMMARY = {"dense": {"params": 100, "device": "cpu"}, "ratio": {"params": 0.5}}


class Reporter(L.Callback):
    """Tells an event at each epoch, as a pruning callback does."""

    def on_train_epoch_start(self, trainer, pl_module):
        event = trainer.current_epoch + 1
        tracking.log_event(trainer, {"prune/step": event, "prune/params": 100 / event})


@pytest.fixture(scope="module", params=[WandbLogger, OtherLogger], ids=["lightning", "pytorch_lightning"])
def folder(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("run")
    loggers = [
        tracking.MetricsFile(folder / "files"),
        CSVLogger(folder, name="plain", version=""),
        request.param(project="test", save_dir=folder, mode="offline"),
    ]
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=loggers,
        callbacks=[Reporter()],
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with tracking.close_new_runs():
        tracking.log_config(trainer, CONFIG)
        trainer.fit(SemanticSegmentation(TinyNet()), TinyData())
        tracking.log_final(trainer, SUMMARY)
    return folder


def rows(file):
    with file.open() as stream:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(stream)]


def test_the_config_is_recorded(folder):
    config = read_offline_run(folder).config
    assert {key: config[key] for key in CONFIG} == CONFIG
    assert config["arch"] == "module:tests.tasks.tiny.TinyNet", "what Lightning sends of the task stays"


def test_events_have_their_own_axis(folder):
    run = read_offline_run(folder)
    assert run.axes["prune/*"] == "prune/step"
    events = [row for row in run.history if "prune/step" in row]
    assert [(row["prune/step"], row["prune/params"]) for row in events] == [(1, 100), (2, 50)]
    assert not any("trainer/global_step" in row and "val/dice" in row for row in events)


def test_training_curves_are_not_lost_beside_events(folder):
    history = read_offline_run(folder).history
    assert [row["trainer/global_step"] for row in history if "val/dice" in row] == [2, 5]
    assert sum("train/loss" in row for row in history) == 2


def test_the_summary_is_written(folder):
    summary = read_offline_run(folder).summary
    final = {key: value for key, value in summary.items() if key.startswith("final/")}
    assert final == {"final/dense/params": 100, "final/dense/device": "cpu", "final/ratio/params": 0.5}


def test_the_run_is_closed(folder):
    import wandb

    assert wandb.run is None
    assert read_offline_run(folder).exit_code == 0


@pytest.mark.parametrize("name", ["files", "plain"])
def test_files_hold_the_same(folder, name):
    table = rows(folder / name / "metrics.csv")
    assert [row["prune/params"] for row in table if "prune/step" in row] == ["100.0", "50.0"]
    assert [row["step"] for row in table if "val/dice" in row] == ["2", "5"]
    assert table[-1] == {"final/dense/params": "100.0", "final/ratio/params": "0.5", "step": "6"}


def test_the_run_folder_holds_no_second_config(folder):
    assert [file.name for file in (folder / "files").iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize("values", [{"prune/params": 1}, {"prune/step": 1, "params": 1}, {}])
def test_an_event_without_its_axis_is_refused(values):
    with pytest.raises(ValueError, match="An event has 'prune/step'"):
        tracking.log_event(L.Trainer(logger=False, accelerator="cpu"), values)


def test_a_run_that_failed_is_closed_as_failed(tmp_path):
    logger = WandbLogger(project="test", save_dir=tmp_path, mode="offline")

    def fail():
        with tracking.close_new_runs():
            assert logger.experiment.id
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    assert read_offline_run(tmp_path).exit_code == 1
