"""Sweeps for many W&B agents: their commands, as an agent makes them, are read by the command line."""

import sys
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from seg_pruning.cli import main

ROOT = Path(__file__).parents[1]
SWEEPS = sorted(ROOT.glob("configs/sweeps/*.yaml"))
METHODS = ("grid", "random", "bayes")


def first_and_last(parameter: dict[str, object]) -> tuple[object, object]:
    """Two values that a sweep may choose."""
    if "values" in parameter:
        values = parameter["values"]
        assert len(set(map(str, values))) == len(values) > 1
        return values[0], values[-1]
    assert parameter["distribution"] == "log_uniform_values"
    assert 0 < parameter["min"] < parameter["max"]
    return parameter["min"], parameter["max"]


def words(sweep: dict, values: dict[str, object], monkeypatch) -> list[str]:
    """The command of an agent, without a shell."""
    monkeypatch.setenv("DENSE", "dense.ckpt")
    args = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    command = create_sweep_command(list(sweep["command"]))
    return [word for part in command for word in (args["args"] if part == "${args}" else [part])]


def found(config: dict, name: str) -> object:
    """The value of a flag in a config; of callbacks the last one is meant."""
    for key in name.split("."):
        config = config[-1] if isinstance(config, list) else config
        config = config[key]
    return config


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_the_command_of_an_agent_is_read(file, capsys, monkeypatch):
    sweep = yaml.safe_load(file.read_text())
    assert sweep["method"] in METHODS
    assert sweep["metric"]["goal"] == "maximize"
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["seg-pruning"])
    pairs = {name: first_and_last(parameter) for name, parameter in sweep["parameters"].items()}
    for i in (0, 1):
        values = {name: pair[i] for name, pair in pairs.items()}
        env, program, *rest = words(sweep, values, monkeypatch)
        assert (env, program) == ("${env}", "seg-pruning")
        with pytest.raises(SystemExit) as ended:
            main([*rest, "--print_config"])
        assert ended.value.code in (0, None)
        config = yaml.safe_load(capsys.readouterr().out)
        assert config["ckpt_path"] == "dense.ckpt"
        for name, value in values.items():
            assert found(config, name) == value, name
        last = config["trainer"]["callbacks"][-1]
        assert last["class_path"] == "seg_pruning.callbacks.IterativePruning"
