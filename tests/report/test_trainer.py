"""`seg-pruning sensitivity`, from a config."""

import csv
import json
import sys
from pathlib import Path

import pytest
import yaml

from seg_pruning.cli import main
from seg_pruning.pruning.sensitivity_record import read_sensitivity, tolerated_floors
from seg_pruning.surgery.errors import PruningError

DEMO = str(Path(__file__).parents[2] / "configs" / "demo.yaml")
TINY = (
    "--trainer.accelerator=cpu",
    "--trainer.enable_model_summary=false",
    "--trainer.precision=32-true",
    "--data.init_args.counts=[4, 2, 2]",
    "--data.init_args.image_size=32",
    "--data.init_args.batch_size=2",
    "--limit=1",
    "--ratios=[0.9]",
)

REAL = "--model.init_args.encoder=tu-test_resnet"  # 21 groups, with blocks that are added
SMALL = '--model.init_args.arch={"class_path": "tests.tasks.tiny.TinyNet", "init_args": {"width": 20}}'


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["seg-pruning"])


def measure(*arguments, network=SMALL):
    return main(["sensitivity", "--config", DEMO, *TINY, network, *arguments])


def files():
    return sorted(str(file) for file in Path().rglob("*") if file.is_file())


def test_the_demo_is_measured_and_goes_on_where_it_stopped(capsys, monkeypatch):
    cli = measure("--max_drop=0.05", network=REAL)
    folder = Path("runs/sensitivity")
    assert {file.name for file in folder.iterdir()} == {
        "floors.yaml",
        "sensitivity.csv",
        "sensitivity.json",
        "sensitivity.png",
    }
    rows = read_sensitivity(folder / "sensitivity.csv")
    assert f"Sensitivity of {len(rows)} groups: runs/sensitivity/sensitivity.csv" in capsys.readouterr().out
    assert all(row.group.startswith("network.") and row.kept == -(-row.size // 10) for row in rows)
    assert yaml.safe_load((folder / "floors.yaml").read_text()) == tolerated_floors(rows, max_drop=0.05)
    lines = (folder / "sensitivity.csv").read_text().splitlines(keepends=True)
    (folder / "sensitivity.csv").write_text("".join(lines[:-1]))
    validations = []
    monkeypatch.setattr(
        type(cli.model), "on_validation_end", lambda self: validations.append(1), raising=False
    )
    measure("--picture=false", network=REAL)
    assert (folder / "sensitivity.csv").read_text() == "".join(lines)
    assert len(validations) == 2, "one that loads, and one of the row that was lost"


def test_a_checkpoint_is_measured_in_the_folder_of_its_run(capsys):
    fit = [word for word in TINY if not word.startswith(("--limit", "--ratios"))]
    main(
        [
            "fit",
            "--config",
            DEMO,
            *fit,
            SMALL,
            "--run.name=mine",
            "--trainer.max_epochs=1",
            "--trainer.callbacks=[]",
        ]
    )
    last = "runs/mine/checkpoints/last.ckpt"
    logged = list(csv.DictReader(Path("runs/mine/metrics.csv").read_text().splitlines()))
    trained = next(float(row["val/loss"]) for row in logged if row.get("val/loss"))
    main(
        [
            *("sensitivity", "--config", "runs/mine/config.yaml", "--ckpt_path", last, "--ratios=[0.9]"),
            *("--metric=val/loss", "--picture=false"),
        ]
    )
    rows = read_sensitivity("runs/mine/sensitivity.csv")
    assert all(row.metric - row.drop == pytest.approx(trained, abs=1e-6) for row in rows), "less is better"
    assert "runs/mine/sensitivity.png" not in files()


def test_a_criterion_comes_from_a_config_with_its_settings():
    named = {"class_path": "seg_pruning.pruning.criteria.Taylor", "init_args": {"form": "abs"}}
    Path("more.yaml").write_text(
        yaml.safe_dump({"criterion": named, "protect": ["nothing*"], "recalibrate": 1})
    )
    with pytest.raises(PruningError, match=r"protect names 'nothing\*'"):
        measure("--config=more.yaml")
    measure("--config=more.yaml", "--protect=[]", "--picture=false")
    stored = json.loads(Path("runs/sensitivity/sensitivity.json").read_text())["about"]
    assert "Taylor(form=abs" in stored["criterion"]
    assert (stored["recalibrate"], stored["limit"], stored["precision"]) == (1, 1, "32-true")
    assert len(read_sensitivity("runs/sensitivity/sensitivity.csv")) == 1


def test_a_trial_writes_nothing():
    measure("--trainer.fast_dev_run=true")
    assert files() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric=val/pq"], "validation logs no 'val/pq'"),
        (["--limit=0"], "limit to be 1 or more"),
        (["--max_drop=-1"], "max_drop to be 0 or more"),
        (["--criterion=l3"], "no criterion is called 'l3'"),
    ],
)
def test_bad_input_leaves_nothing(arguments, message):
    with pytest.raises(PruningError, match=message):
        measure(*arguments)
    assert files() == []


def test_the_picture_is_asked_for_before_anything_is_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PruningError, match=r"seg-pruning\[plot\]"):
        measure()
    assert files() == []


def test_another_criterion_is_refused_with_the_reason():
    measure("--picture=false")
    with pytest.raises(PruningError, match=r"criterion: L2\(.*\) there, L1\(.*\) here"):
        measure("--criterion=l1", "--picture=false")
