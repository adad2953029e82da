"""A run that prunes ends with one table, the same numbers in files, and a network that loads by itself."""

import copy
import csv
import io
import json
import math

import lightning as L
import pytest
import segmentation_models_pytorch as smp
import torch
from rich.console import Console

import seg_pruning as sp
from seg_pruning.cli import main
from seg_pruning.profiling import comparison
from seg_pruning.report import Summary
from seg_pruning.report.summary import summarise
from seg_pruning.surgery.inputs import Inputs
from seg_pruning.tasks import SemanticSegmentation

ENCODER = "tu-test_resnet"
CONFIG = {
    "seed_everything": 0,
    "run": {"name": "it"},
    "trainer": {
        "max_epochs": 3,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        "logger": False,
        "callbacks": [
            {
                "class_path": "seg_pruning.callbacks.IterativePruning",
                "init_args": {"budget": {"macs": 0.4}, "criterion": "l2", "start_epoch": 1},
            }
        ],
    },
    "model": {"class_path": "SemanticSegmentation", "init_args": {"encoder": ENCODER}},
    "data": {
        "class_path": "SyntheticPolyps",
        "init_args": {"counts": [4, 2, 3], "image_size": 32, "batch_size": 2},
    },
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of one small run from the command line, and what it printed."""
    place = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("sys.argv", ["seg-pruning"])
        shown = Console(record=True, width=120, file=io.StringIO())
        show = Summary.show
        patch.setattr(Summary, "show", lambda self: show(self, shown))
        main({"subcommand": "fit", "fit": copy.deepcopy(CONFIG)})
    return place / "runs" / "it", shown.export_text()


@pytest.fixture(scope="module")
def written(run):
    return json.loads((run[0] / "summary.json").read_text())


def test_summary_holds_costs_and_test_metrics_of_both(run, written):
    keys = {"params", "macs", "latency_p50_ms", "latency_p95_ms", "test/dice", "test/iou", "test/dice_se"}
    assert keys <= set(written["dense"])
    assert keys <= set(written["pruned"])
    dense = smp.Unet(ENCODER, encoder_weights=None)
    assert written["dense"]["params"] == sum(p.numel() for p in dense.parameters())
    assert written["ratio"]["macs"] == pytest.approx(written["pruned"]["macs"] / written["dense"]["macs"])
    assert 0.3 < written["ratio"]["macs"] <= 0.4
    assert {"command", "torch", "latency"} <= set(written["conditions"])


def test_summary_says_what_was_asked_predicted_and_got(written):
    assert set(written["budget"]) == {"macs"}
    macs = written["budget"]["macs"]
    assert macs["asked"] == int(0.4 * written["dense"]["macs"])
    assert macs["predicted"] == macs["got"] == written["pruned"]["macs"] <= macs["asked"]


def test_table_shows_what_the_file_holds(run, written):
    line = next(line for line in run[1].splitlines() if "params" in line)
    assert f"{written['dense']['params']:,.0f}" in line
    assert f"{written['pruned']['params']:,.0f}" in line
    assert "latency p95" in run[1]


def test_pruned_file_loads_into_a_network_of_the_same_arguments(run, written):
    network = smp.Unet(ENCODER, encoder_weights=None)
    sp.load_pruned_(network, run[0] / "pruned.safetensors")
    assert sum(p.numel() for p in network.parameters()) == written["pruned"]["params"]
    best = next((run[0] / "checkpoints").glob("best-epoch00[12].ckpt"))
    task = SemanticSegmentation.load_from_checkpoint(best)
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(network.eval()(image), task.eval()(image))


def test_dense_checkpoint_is_the_network_before_the_first_cut(run, written):
    task = SemanticSegmentation.load_from_checkpoint(run[0] / "checkpoints" / "dense.ckpt")
    assert sum(p.numel() for p in task.network.parameters()) == written["dense"]["params"]


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # the run that goes on has its own folder
def test_a_run_that_goes_on_after_the_cut_compares_with_the_same_dense_network(
    run, written, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["seg-pruning"])
    config = copy.deepcopy(CONFIG) | {"ckpt_path": str(run[0] / "checkpoints" / "last.ckpt")}
    config["trainer"]["max_epochs"] = 4
    main({"subcommand": "fit", "fit": config})
    found = json.loads((tmp_path / "runs" / "it" / "summary.json").read_text())
    for name in ("params", "macs", "test/dice", "test/iou"):
        assert found["dense"][name] == written["dense"][name]
    assert found["pruned"]["params"] == written["pruned"]["params"]


def test_without_checkpoints_the_pruned_network_is_compared_with_nothing(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["seg-pruning"])
    config = copy.deepcopy(CONFIG)
    config["trainer"]["enable_checkpointing"] = False
    said: list[str] = []
    monkeypatch.setattr("seg_pruning.cli.rank_zero_warn", said.append)
    main({"subcommand": "fit", "fit": config})
    assert len(said) == 1
    assert "no dense.ckpt of before the first cut was kept" in said[0]
    found = json.loads((tmp_path / "runs" / "it" / "summary.json").read_text())
    assert (found["dense"], found["ratio"]) == ({}, {})
    assert found["pruned"]["params"] == written["pruned"]["params"]


def test_loggers_get_events_and_finals(run, written):
    with (run[0] / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    events = [row for row in rows if row.get("prune/step")]
    assert len(events) == 1
    assert float(events[0]["prune/macs"]) == written["pruned"]["macs"]
    finals = [row for row in rows if row.get("final/pruned/params")]
    assert float(finals[-1]["final/pruned/params"]) == written["pruned"]["params"]


def test_values_without_a_number_are_shown_and_written_as_none():
    compared = comparison({"params": 4, "test/dice": math.nan}, {"params": 2, "test/dice": 0.5})
    console = Console(record=True, width=80, file=io.StringIO())
    Summary(compared, "title").show(console)
    row = next(line for line in console.export_text().splitlines() if "test/dice" in line)
    assert "-" in row
    assert json.loads(json.dumps(compared, allow_nan=False))["ratio"]["test/dice"] is None


def test_only_the_first_rank_measures_and_writes(tmp_path):
    """What a trainer of another rank does, but for its process: it tests with the others, and that is all."""

    class Second(L.Trainer):
        is_global_zero = False

    tested = []
    trainer = Second(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    trainer.test = lambda *_, **__: tested.append(1) or [{}]
    found = summarise(
        trainer,
        SemanticSegmentation(smp.Unet(ENCODER, encoder_weights=None)),
        checkpoints={"dense": None, "pruned": None},
        inputs=Inputs((torch.zeros(1, 3, 32, 32),), {}),
        folder=tmp_path / "run",
    )
    assert found is None
    assert tested == [1, 1]
    assert not (tmp_path / "run").exists()
