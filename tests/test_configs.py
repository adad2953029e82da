"""Every file in configs/ composes, prints itself, reads itself back, and runs."""

import sys
from pathlib import Path

import pytest
import yaml

from seg_pruning.cli import main

CONFIGS = Path(__file__).parents[1] / "configs"
WHOLE = sorted(CONFIGS.glob("*.yaml"))
PARTS = [part for part in sorted(CONFIGS.glob("*/*.yaml")) if part.parent.name != "sweeps"]
BASE = [CONFIGS / part for part in ("data/synthetic.yaml", "model/unet_resnet18.yaml", "trainer/cpu.yaml")]
TINY = (
    "--trainer.fast_dev_run=true",
    "--trainer.accelerator=cpu",
    "--trainer.enable_model_summary=false",
    "--model.init_args.encoder=tu-test_resnet",
    "--data=SyntheticPolyps",
    "--data.init_args.counts=[4, 2, 2]",
    "--data.init_args.image_size=32",
    "--data.init_args.batch_size=2",
)


def given(file):
    """The command line that uses a config: a part is laid over one of each other kind."""
    files = [file] if file in WHOLE else [*BASE, file]
    return [word for each in files for word in ("--config", str(each))]


def name(file):
    return str(file.relative_to(CONFIGS))


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["seg-pruning"])


@pytest.mark.parametrize("file", WHOLE + PARTS, ids=name)
def test_runs(file, tmp_path):
    cli = main(["fit", *given(file), *TINY])
    assert cli.trainer.global_step == 1
    assert "val/dice" in cli.trainer.callback_metrics
    assert list(tmp_path.iterdir()) == [], "a trial leaves nothing"


def printed(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["fit", *arguments, "--print_config"])
    assert raised.value.code in (0, None)
    return capsys.readouterr().out


@pytest.mark.parametrize("file", WHOLE + PARTS, ids=name)
def test_print_config_round_trips(file, tmp_path, capsys):
    first = printed(given(file), capsys)
    copy = tmp_path / "printed.yaml"
    copy.write_text(first)
    assert printed(["--config", str(copy)], capsys) == first
    for path, value in leaves(yaml.safe_load(file.read_text())):
        assert holds(at(yaml.safe_load(first), path), value), f"{path} is not what the file says"


@pytest.mark.parametrize("file", WHOLE + PARTS, ids=name)
def test_no_key_is_given_twice(file):
    """YAML keeps the last one and says nothing."""
    twice = []

    def mapping(loader, node):
        keys = [loader.construct_object(key) for key, _ in node.value]
        twice.extend(key for key in keys if keys.count(key) > 1)
        return loader.construct_mapping(node, deep=True)

    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    yaml.load(file.read_text(), loader)
    assert twice == []


def leaves(tree, path=()):
    """What a file sets, by path; a `+` at the end of a key adds to a list and is no part of its name."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key.removesuffix("+")), value


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def holds(whole, part):
    """Whether a printed value holds what was given: objects are printed with all their defaults."""
    if isinstance(part, dict):
        return all(key in whole and holds(whole[key], value) for key, value in part.items())
    if isinstance(part, list) and part and isinstance(part[0], dict):
        return all(any(holds(found, wanted) for found in whole) for wanted in part)
    return whole == part
