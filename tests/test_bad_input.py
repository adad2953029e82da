"""What a user gets wrong about pruning is told in one error, before training, and leaves nothing behind."""

import re
import sys

import pytest

from seg_pruning.cli import main

DATA = {"counts": [4, 2, 2], "image_size": 32, "batch_size": 2}
QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}


def config(**pruning):
    arguments = {"budget": {"macs": 0.5}, "criterion": "l2", "start_epoch": 1, **pruning}
    callback = {"class_path": "seg_pruning.callbacks.IterativePruning", "init_args": arguments}
    trainer = {"max_epochs": 2, "accelerator": "cpu", "logger": False, "callbacks": [callback], **QUIET}
    fit = {
        "trainer": trainer,
        "model": {"class_path": "SemanticSegmentation", "init_args": {"encoder": "tu-test_resnet"}},
        "data": {"class_path": "SyntheticPolyps", "init_args": DATA},
    }
    return {"subcommand": "fit", "fit": fit}


@pytest.mark.parametrize(
    ("pruning", "message"),
    [
        ({"criterion": "tailor"}, r"no criterion is called 'tailor': .*did you mean 'taylor'"),
        ({"schedule": "cubik"}, r"no schedule is called 'cubik': .*did you mean 'cubic'"),
        ({"budget": {"mac": 0.3}}, r"no budget is called 'mac': .*did you mean 'macs'"),
        ({"budget": {"macs": 30}}, r"macs=30.* above 0 and at most 1"),
        ({"budget": {"params": 0.0001}}, r"the smallest reachable is .* params"),
        ({"start_epoch": 2}, r"leaves no epoch to recover: choose max_epochs=3 or more"),
        ({"criterion": "taylor", "start_epoch": 0}, r"needs the gradients of at least one epoch"),
        ({"selection": {"protect": ["network.encoder.convX"]}}, r"protect names 'network.encoder.convX'"),
        ({"selection": {"scope": "locally"}}, r"scope|locally"),
    ],
    ids=["criterion", "schedule", "budget", "fraction", "reach", "epochs", "gradients", "protect", "scope"],
)
def test_one_error_and_no_folder(pruning, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["seg-pruning"])
    with pytest.raises((ValueError, SystemExit)) as raised:
        main(config(**pruning))
    said = str(raised.value) if raised.type is not SystemExit else capsys.readouterr().err
    assert re.search(message, said, re.DOTALL), said
    assert list(tmp_path.iterdir()) == []
