import csv
import os
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
import yaml
from PIL import Image

from seg_pruning.cli import main
from seg_pruning.surgery.errors import PruningError
from seg_pruning.tasks import SemanticSegmentation
from tests.tracking.offline_run import read_offline_run

ROOT = Path(__file__).parents[1]
NET = {"class_path": "tests.tasks.tiny.TinyNet", "init_args": {"width": 4}}
QUIET = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
    "log_every_n_steps": 1,
}

# A resumed run has a folder of its own, and Lightning tells that the old checkpoints stay where they are.
RESUMED = pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    """An empty folder to run in, and an environment that says nothing of W&B."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(sys, "argv", ["seg-pruning"])


def config(**changes):
    """A config that trains the tiny network on the tiny data; nested keys are joined by two underscores."""
    full = {
        "trainer": {**QUIET, "max_epochs": 1},
        "model": {"class_path": "SemanticSegmentation", "init_args": {"arch": NET}},
        "data": {"class_path": "tests.tasks.tiny.TinyData", "init_args": {}},
    }
    for key, value in changes.items():
        *path, last = key.split("__")
        place = full
        for step in path:
            place = place.setdefault(step, {})
        place[last] = value
    return full


def written(name="config.yaml", **changes):
    file = Path(name)
    file.write_text(yaml.safe_dump(config(**changes)))
    return str(file)


def only_run(root="runs"):
    (folder,) = Path(root).iterdir()
    return folder


def test_a_run_leaves_one_folder_with_all_that_is_promised():
    cli = main(["fit", "--config", written()])
    assert [path.name for path in Path().iterdir() if path.name != "config.yaml"] == ["runs"]
    folder = only_run()
    assert cli.folder == folder.resolve()
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    assert files == ["checkpoints/best-epoch000.ckpt", "checkpoints/last.ckpt", "config.yaml", "metrics.csv"]
    with (folder / "metrics.csv").open() as stream:
        logged = {key for row in csv.DictReader(stream) for key, value in row.items() if value}
    assert {"train/loss", "val/loss", "val/dice", "val/iou_dataset"} <= logged


def test_the_saved_config_makes_the_same_run_again():
    main(["fit", "--config", written(trainer__max_epochs=2)])
    first = only_run()
    main(["fit", "--config", str(first / "config.yaml"), "--run.name", "again"])
    assert (first / "metrics.csv").read_text() == Path("runs/again/metrics.csv").read_text()
    weights = [
        torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (first, Path("runs/again"))
    ]
    for name, value in weights[0]["state_dict"].items():
        assert torch.equal(value, weights[1]["state_dict"][name])


def test_runs_of_one_second_get_folders_of_their_own():
    for _ in range(2):
        main(["fit", "--config", written(trainer__limit_train_batches=1, trainer__limit_val_batches=1)])
    assert len(list(Path("runs").iterdir())) == 2


def test_no_run_overwrites_another():
    main(["fit", "--config", written(), "--run.name", "mine"])
    before = {file: file.read_bytes() for file in Path("runs").rglob("*") if file.is_file()}
    with pytest.raises(
        PruningError, match=r"run runs/mine exists, and no run overwrites another\. Choose another"
    ):
        main(["fit", "--config", written(), "--run.name", "mine"])
    assert {file: file.read_bytes() for file in Path("runs").rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__init_args__broken": True}, "broken data"),
        ({"data__init_args__classes": 4}, r"Masks hold the values \[2, 3\]"),
        ({"model__init_args__arch": "unnet"}, r"'unnet' is no architecture\. Nearest: unet"),
        (
            {"model__init_args__arch": "unet", "model__init_args__encoder": "resnet81"},
            "'resnet81' is no encoder",
        ),
        ({"ckpt_path": "nowhere/last.ckpt"}, r"no checkpoint nowhere/last\.ckpt"),
        ({"run__name": "../up"}, r"plain folder name, not '\.\./up'"),
        ({"trainer__logger": {"class_path": "WandbLogger"}}, "no API key. Run `wandb login` once"),
        (
            {
                "data": {
                    "class_path": "SyntheticPolyps",
                    "init_args": {"counts": [4, 2, 2], "image_size": 32},
                },
                "model__init_args__classes": 3,
                "model__init_args__loss": "ce",
            },
            r"The data has 1 classes, the network 3 \(0, 1, 2\).*classes to 1",
        ),
    ],
)
def test_bad_input_leaves_no_folder(changes, message):
    with pytest.raises(ValueError, match=message):
        main(["fit", "--config", written(**changes)])
    assert [path.name for path in Path().iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer.max_epochz", "3"], "max_epochz"),
        (["--model.init_args.encodr", "resnet18"], "encodr"),
        (["--model.init_args.loss", "dise"], "dise"),
        (["--data", "SyntheticPolips"], "SyntheticPolips"),
    ],
)
def test_unknown_keys_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["fit", "--config", written(), *arguments])
    assert raised.value.code == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["config.yaml"]


def test_what_a_run_wrote_stays_when_it_fails_later():
    class Failing(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                raise RuntimeError("in the second epoch")

    sys.modules[__name__].Failing = Failing
    Failing.__module__ = __name__
    Failing.__qualname__ = "Failing"
    with pytest.raises(RuntimeError, match="second epoch"):
        main(
            [
                "fit",
                "--config",
                written(trainer__max_epochs=2, trainer__callbacks=[{"class_path": f"{__name__}.Failing"}]),
            ]
        )
    assert (only_run() / "checkpoints" / "last.ckpt").is_file()


def test_fast_dev_run_writes_nothing():
    main(["fit", "--config", written(trainer__fast_dev_run=True)])
    assert [path.name for path in Path().iterdir()] == ["config.yaml"]


def test_checkpoints_can_be_switched_off():
    main(["fit", "--config", written(trainer__enable_checkpointing=False)])
    assert not (only_run() / "checkpoints").exists()


def test_a_second_config_adds_callbacks_with_a_plus():
    """A plain `callbacks:` in a second config would replace the first one's."""
    Path("more.yaml").write_text(
        "trainer:\n  callbacks+:\n  - class_path: EarlyStopping\n    init_args: {monitor: val/dice}\n"
    )
    first = written(trainer__callbacks=[{"class_path": "LearningRateMonitor"}])
    cli = main(["fit", "--config", first, "--config", "more.yaml"])
    names = [type(callback).__name__ for callback in cli.trainer.callbacks]
    assert {"LearningRateMonitor", "EarlyStopping", "ModelCheckpoint"} <= set(names)


def test_a_run_is_tested_with_its_own_config(capsys):
    main(["fit", "--config", written(), "--run.name", "mine"])
    folder = only_run()
    before = set(Path().rglob("*"))
    cli = main(
        [
            "test",
            "--config",
            str(folder / "config.yaml"),
            "--ckpt_path",
            str(folder / "checkpoints/last.ckpt"),
        ]
    )
    per_image = cli.model.scores["test"].per_image()["dice"]
    assert cli.trainer.callback_metrics["test/dice"].item() == pytest.approx(per_image.mean().item())
    assert "test/dice_se" in capsys.readouterr().out
    main(["validate", "--config", str(folder / "config.yaml")])
    assert set(Path().rglob("*")) == before, "only training and prediction write"


@RESUMED
def test_flags_win_over_what_a_checkpoint_says():
    main(["fit", "--config", written()])
    last = str(only_run() / "checkpoints/last.ckpt")
    cli = main(["fit", "--config", written(), "--ckpt_path", last, "--model.init_args.loss", "dice"])
    assert cli.model.loss_name == "dice"


@RESUMED
def test_a_resumed_run_goes_on_in_a_folder_of_its_own():
    main(["fit", "--config", written(), "--run.name", "first"])
    main(
        [
            "fit",
            "--config",
            written(),
            "--run.name",
            "next",
            "--ckpt_path",
            "runs/first/checkpoints/last.ckpt",
            "--trainer.max_epochs",
            "3",
        ]
    )
    assert Path("runs/next/checkpoints/last.ckpt").is_file()
    saved = torch.load("runs/next/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 9


@RESUMED
def test_one_command_begins_a_run_and_goes_on_with_it(capsys):
    """From `last`, however often the run was killed: here each time after its last checkpoint."""
    command = [
        "fit",
        "--config",
        written(),
        "--run.name",
        "mine",
        "--ckpt_path",
        "last",
        "--trainer.max_epochs",
    ]
    with pytest.raises(PruningError, match=r"no run mine in runs has left a last\.ckpt: name the file"):
        main(["test", *command[1:-1]])
    for epochs in (1, 2, 3):
        assert main([*command, str(epochs)]).trainer.global_step == 3 * epochs
    assert sorted(folder.name for folder in Path("runs").iterdir()) == ["mine", "mine-2", "mine-3"]
    cli = main(["test", "--config", written(), "--ckpt_path", "last"])
    assert cli.trainer.ckpt_path == "runs/mine-3/checkpoints/last.ckpt"


def test_a_checkpoint_of_the_command_line_loads_by_itself():
    """Even with a network given as a class path, since the config is plain."""
    main(
        [
            "fit",
            "--config",
            written(model__init_args__optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.5}}),
        ]
    )
    file = only_run() / "checkpoints/last.ckpt"
    task = SemanticSegmentation.load_from_checkpoint(file, weights_only=True)
    assert task.configure_optimizers().param_groups[0]["lr"] == 0.5
    weights = torch.load(file, weights_only=True)["state_dict"]
    assert torch.equal(task.network.stem.weight, weights["network.stem.weight"])


def test_a_checkpoint_of_another_network_is_told():
    main(["fit", "--config", written()])
    last = str(only_run() / "checkpoints/last.ckpt")
    other = written(model__init_args__arch={"class_path": NET["class_path"], "init_args": {"width": 9}})
    with pytest.raises(
        PruningError, match=r"last\.ckpt: these weights are of another network(.|\n)*network\.stem\.weight"
    ):
        main(["fit", "--config", other, "--ckpt_path", last])
    assert len(list(Path("runs").iterdir())) == 1


def test_prediction_writes_masks():
    cli = main(["predict", "--config", written(data__init_args__images=3)])
    masks = only_run() / "masks"
    assert sorted(file.name for file in masks.iterdir()) == ["image0.png", "image1.png", "image2.png"]
    images = cli.datamodule.predict_dataloader().dataset
    expected = cli.model.to_mask(cli.model(images.images)) * 255
    for index in range(3):
        pixels = torch.tensor(list(Image.open(masks / f"image{index}.png").tobytes())).reshape(32, 32)
        assert torch.equal(pixels, expected[index])


def test_wandb_gets_the_whole_config_and_is_closed(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    main(["fit", "--config", written()])
    run = read_offline_run(only_run() / "wandb")
    saved = yaml.safe_load((only_run() / "config.yaml").read_text())
    assert {key: run.config[key] for key in saved} == saved
    assert [row["trainer/global_step"] for row in run.history if "val/dice" in row] == [2]
    assert run.exit_code == 0
    assert (only_run() / "metrics.csv").is_file()


def test_a_wandb_run_that_came_to_nothing_is_removed(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(ValueError, match="broken data"):
        main(["fit", "--config", written(data__init_args__broken=True)])
    assert not Path("runs").exists()


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "seg_pruning", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_process_ends_with_one_message_and_nothing_asked():
    done = run("fit", "--config", written(model__init_args__arch="unnet"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("seg-pruning: error: 'unnet' is no architecture.")


def test_print_config_round_trips():
    first = run("fit", "--config", written(), "--print_config")
    Path("printed.yaml").write_text(first.stdout)
    assert run("fit", "--config", "printed.yaml", "--print_config").stdout == first.stdout
    assert yaml.safe_load(first.stdout)["checkpoint"]["monitor"] == "val/dice"
