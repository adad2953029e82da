import math
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from seg_pruning.callbacks import Scoring
from seg_pruning.callbacks.checks import check_strategy
from seg_pruning.pruning.selection import Selection
from seg_pruning.surgery.errors import PruningError
from tests.callbacks.modules import Stranger, fit, pruning, size, trainer_in


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": {"weights": 0.5}}, "params"),
        ({"budget": {"params": 1.5}}, "1.5"),
        ({"budget": {}}, "budget"),
        ({"criterion": "tailor"}, "taylor"),
        ({"schedule": "cubik"}, "cubic"),
        ({"start_epoch": -1}, "-1"),
        ({"every_n_epochs": 0}, "0"),
        ({"start_epoch": 5, "end_epoch": 4}, "4"),
        ({"start_epoch": 0, "criterion": "taylor"}, "start at epoch 1 or later"),
    ],
)
def test_wrong_arguments_are_refused_at_once(options, message):
    with pytest.raises(PruningError, match=message):
        pruning(**options)


class DeepSpeedLike(DeepSpeedStrategy):
    def __init__(self) -> None:
        """Its own needs DeepSpeed to be installed."""


class NoStep(L.Callback):
    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        raise AssertionError("training has begun")


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        ({"budget": {"params": 0.001}}, {}, r"smallest reachable is \d+ params"),
        ({"selection": Selection(protect=("net.*",))}, {}, "cannot be reached"),
        ({"selection": Selection(protect=("net.frist",))}, {}, "net.first"),
        (
            {
                "criterion": Scoring("l2", bn_penalty=1e-4),
                "selection": Selection(protect=("net.first", "net.down")),
                "budget": {"params": 0.95},
            },
            {},
            "bn_penalty=0.0001 changes nothing: no BatchNorm",
        ),
        ({"end_epoch": 5}, {}, "leaves no epoch to recover"),
        ({}, {"max_epochs": -1, "max_steps": 11}, "max_steps=12"),
        ({"example_inputs": torch.rand(1, 4, 8, 8)}, {}, "channels"),
    ],
)
def test_what_cannot_work_is_refused_before_a_step(tmp_path, options, settings, message):
    module = Stranger()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(PruningError, match=message):
        fit(tmp_path, module, pruning(**options), NoStep(), **settings)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def test_the_smallest_reachable_budget_is_reached(tmp_path):
    module = Stranger()
    dense = size(module)
    with pytest.raises(PruningError, match="smallest reachable") as caught:
        fit(tmp_path / "a", module, pruning(budget={"params": 0.001}))
    least = int(str(caught.value).split("smallest reachable is ")[1].split(" ")[0].replace(",", ""))
    near = pruning(budget={"params": math.ceil(1e4 * (least + 0.5) / dense) / 1e4}, end_epoch=1)
    fit(tmp_path / "b", module, near, max_epochs=2)
    assert size(module) == least


def test_max_steps_that_are_enough(tmp_path):
    module = Stranger()
    dense = size(module)
    fit(tmp_path, module, pruning(), max_epochs=-1, max_steps=12)
    assert size(module) <= 0.5 * dense


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "ddp_spawn", "devices": 2}, r"spawned or forked.*strategy='ddp'"),
        ({"strategy": "ddp_fork", "devices": 1}, r"spawned or forked"),
        ({"strategy": "ddp_notebook", "devices": 2}, r"spawned or forked"),
    ],
)
def test_processes_that_hand_their_weights_back_are_refused(tmp_path, settings, message):
    with pytest.raises(PruningError, match=message):
        check_strategy(trainer_in(tmp_path, **settings))


@pytest.mark.parametrize("strategy", [FSDPStrategy, DeepSpeedLike, ModelParallelStrategy])
def test_networks_that_are_spread_are_refused(strategy):
    with pytest.raises(PruningError, match=r"whole network on each device.*strategy='ddp'"):
        check_strategy(SimpleNamespace(strategy=strategy()))


@pytest.mark.parametrize("settings", [{}, {"strategy": "ddp", "devices": 2}, {"strategy": "ddp"}])
def test_copies_on_several_devices_are_not_refused(tmp_path, settings):
    check_strategy(trainer_in(tmp_path, **settings))


def test_a_training_that_ends_too_early_says_so(tmp_path):
    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 1

    with pytest.raises(UserWarning, match="after 1 of 2 cuts"):  # warnings are errors here
        fit(tmp_path, Stranger(), pruning(), Stop())


def test_a_trial_run_of_lightning_passes(tmp_path):
    module = Stranger()
    dense = size(module)
    fit(tmp_path, module, pruning(start_epoch=10, end_epoch=20), fast_dev_run=True)
    assert size(module) == dense
