"""The callback from a config, as the command line builds it."""

import jsonargparse
import pytest
import yaml

from seg_pruning.callbacks import Distillation, Floor, IterativePruning, Recovery, Schedule, Scoring
from seg_pruning.pruning.criteria import L1, Taylor
from seg_pruning.pruning.selection import Selection

CONFIG = """
callback:
  class_path: seg_pruning.callbacks.IterativePruning
  init_args:
    budget: {macs: 0.3, params: 0.5}
    schedule: linear
    start_epoch: 2
    every_n_epochs: 2
    end_epoch: 6
    selection: {scope: local, round_to: 8, protect: ["net.head", "net.first.*"]}
"""


def parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--callback", type=IterativePruning)
    return parser


def built(criterion: object) -> tuple[IterativePruning, str]:
    """The callback of a config, and the config as it is printed."""
    config = yaml.safe_load(CONFIG)
    if criterion is not None:
        config["callback"]["init_args"]["criterion"] = criterion
    parsed = parser().parse_object(config)
    return parser().instantiate(parsed).callback, parser().dump(parsed)


@pytest.mark.parametrize(
    ("criterion", "kind"),
    [
        (None, Taylor),
        ("l1", L1),
        ({"class_path": "seg_pruning.pruning.criteria.Taylor", "init_args": {"form": "abs"}}, Taylor),
    ],
)
def test_built_from_a_config(criterion, kind):
    callback, _ = built(criterion)
    assert callback.epochs == (2, 4, 6)
    assert callback.budget.fractions == {"macs": 0.3, "params": 0.5}
    assert callback.selection == Selection(scope="local", round_to=8, protect=("net.head", "net.first.*"))
    assert type(callback.scores.criterion) is kind
    if isinstance(criterion, dict):
        assert callback.scores.criterion.form == "abs"


@pytest.mark.parametrize(
    "criterion", ["l2", {"class_path": "seg_pruning.pruning.criteria.Taylor", "init_args": {"form": "abs"}}]
)
def test_the_printed_config_builds_the_same(criterion):
    callback, printed = built(criterion)
    again = parser().instantiate(parser().parse_string(printed)).callback
    assert again.selection == callback.selection
    assert vars(again.scores.criterion) == vars(callback.scores.criterion)
    assert (again.budget, again.epochs) == (callback.budget, callback.epochs)


@pytest.mark.parametrize("criterion", ["tailor", {"class_path": "seg_pruning.pruning.criteria.Tailor"}])
def test_a_criterion_that_does_not_exist(criterion):
    with pytest.raises((jsonargparse.ArgumentError, ValueError), match=r"[Tt]ailor"):
        built(criterion)


RICH = """
callback:
  class_path: seg_pruning.callbacks.IterativePruning
  init_args:
    budget: {params: 0.1, max_drop: {val/dice: 0.01}}
    criterion:
      criterion: l1
      bn_penalty: 1.0e-4
    schedule:
      shape: linear
      every_n_steps: 100
      end_step: 900
      recovery: {recalibrate: 8, rewarm: 50, rewind: lr}
"""


def test_the_rich_forms():
    parsed = parser().parse_string(RICH)
    for config in (parsed, parser().parse_string(parser().dump(parsed))):
        callback = parser().instantiate(config).callback
        assert callback.guard.floor == Floor(max_drop={"val/dice": 0.01})
        assert callback.scores.scoring == Scoring("l1", bn_penalty=1e-4)
        recovery = Recovery(recalibrate=8, rewarm=50, rewind="lr")
        assert callback.schedule == Schedule("linear", every_n_steps=100, end_step=900, recovery=recovery)


def test_distillation_from_a_config():
    other = jsonargparse.ArgumentParser(exit_on_error=False)
    other.add_argument("--callback", type=Distillation)
    options = {"temperature": 4.0, "features": ["net.up"], "of": "net"}
    config = {"callback": {"class_path": "seg_pruning.callbacks.Distillation", "init_args": options}}
    callback = other.instantiate(other.parse_object(config)).callback
    assert (callback.temperature, callback.features, callback.of) == (4.0, ("net.up",), "net")
