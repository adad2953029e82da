import csv
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from seg_pruning.callbacks import IterativePruning
from seg_pruning.pruning.criteria import Taylor
from seg_pruning.pruning.selection import Selection
from seg_pruning.surgery.errors import PruningError
from tests.callbacks.modules import OPTIMIZERS, Data, Stranger, fit, pruning, size


class Watch(L.Callback):
    """Notes sizes and objects around each epoch; named after the pruning, so that it sees what that did."""

    def __init__(self) -> None:
        self.at_start: list[int] = []
        self.validated: list[int] = []
        self.steps_at_start: list[int] = []
        self.optimizers: list[int] = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.at_start.append(size(pl_module))
        self.steps_at_start.append(pl_module.steps)
        self.optimizers.append(id(trainer.optimizers[0]))

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.validated.append(size(pl_module))


def rows(folder: Path) -> list[dict[str, float]]:
    """The events that a CSV logger wrote."""
    with (folder / "metrics.csv").open() as file:
        found = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return [row for row in found if "prune/step" in row]


@pytest.mark.parametrize("known", [True, False], ids=["example given", "example from batches"])
@pytest.mark.parametrize("criterion", ["l2", "taylor"])
def test_channels_leave_at_the_chosen_epochs_and_the_budget_holds(tmp_path, criterion, known):
    module, watch = Stranger(), Watch()
    dense = size(module)
    example = torch.rand(1, 3, 8, 8) if known else None
    fit(tmp_path, module, pruning(criterion=criterion, example_inputs=example), watch)
    first, second, third, fourth, fifth = watch.validated
    assert first == dense
    assert second == third < first
    assert fourth == fifth < third
    assert fifth <= 0.5 * dense
    assert fifth > 0.5 * dense - 150  # no further than asked: a channel has at most 150 parameters
    assert module(torch.rand(2, 3, 8, 8)).shape == (2, 1, 8, 8)


def test_what_was_validated_is_what_each_checkpoint_holds(tmp_path):
    watch = Watch()
    fit(tmp_path, Stranger(), pruning(criterion="taylor"), watch)
    for epoch, validated in enumerate(watch.validated):
        state = torch.load(tmp_path / "checkpoints" / f"epoch={epoch}.ckpt", weights_only=True)["state_dict"]
        assert sum(state[name].numel() for name, _ in Stranger().named_parameters()) == validated


def test_each_logger_gets_each_cut(tmp_path):
    loggers = [CSVLogger(tmp_path / name, name="", version="") for name in ("a", "b")]
    module = Stranger()
    dense = size(module)
    fit(tmp_path, module, pruning(), logger=loggers)
    for name in ("a", "b"):
        events = rows(tmp_path / name)
        assert [event["prune/step"] for event in events] == [1, 2]
        assert [event["prune/epoch"] for event in events] == [1, 3]
        assert events[1]["prune/params"] == size(module) <= 0.5 * dense < events[0]["prune/params"] < dense
        assert events[1]["prune/macs"] < events[0]["prune/macs"]
        assert all(0 <= event["prune/max_error"] < 1e-5 for event in events)
        widths = {k: v for k, v in events[1].items() if k.startswith("prune/channels/")}
        assert sum(widths.values()) == events[1]["prune/channels"]
        assert module.net.down[0].out_channels in widths.values()


def test_groups_that_end_at_one_channel_are_still_counted(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("seg_pruning.callbacks.event.rank_zero_info", said.append)
    module = Stranger(width=2)
    selection = Selection(floor=0.0, head_floor=0.0, round_to=1)
    fit(tmp_path, module, pruning(budget={"channels": 3}, selection=selection, end_epoch=1), max_epochs=2)
    assert [part.weight.shape[0] for part in (module.net.first[0], module.net.down[0], module.net.last)] == [
        1
    ] * 3
    assert [event["prune/channels"] for event in rows(tmp_path)] == [3]
    assert "5 channels removed" in said[0]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_parameters_and_optimizer_stay_the_objects_that_they_were(tmp_path, optimizer):
    module, watch = Stranger(optimizer), Watch()
    before = {name: id(parameter) for name, parameter in module.named_parameters()}
    trainer = fit(tmp_path, module, pruning(), watch)
    assert {name: id(parameter) for name, parameter in module.named_parameters()} == before
    assert module.configured == 1
    assert set(watch.optimizers) == {id(trainer.optimizers[0])}
    assert trainer.optimizers[0].param_groups[0]["lr"] < trainer.optimizers[0].param_groups[0]["initial_lr"]


def test_flags_modes_and_hooks_survive(tmp_path):
    module = Stranger()
    module.net.first.requires_grad_(False)
    modes: list[bool] = []
    calls: list[int] = []

    class Modes(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            pl_module.net.first.eval()

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            modes.append(pl_module.net.first.training)
            assert pl_module.net.last.training

    module.net.down.register_forward_hook(lambda *_: calls.append(module.net.down[0].out_channels))
    fit(tmp_path, module, Modes(), pruning())
    assert not module.net.first[0].weight.requires_grad
    assert module.net.last.weight.requires_grad
    assert module.net.last.weight.shape[0] < 6
    assert not any(modes)
    assert calls[-1] == module.net.down[0].out_channels < 12


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("criterion", ["l2", "taylor"])
def test_training_is_not_disturbed(tmp_path, criterion, workers):
    """A callback that has nothing to remove takes no random number and no batch from the training."""
    alone, watched = Stranger(), Stranger()
    watched.load_state_dict(alone.state_dict())
    fit(tmp_path / "alone", alone, data=Data(workers=workers), max_epochs=3)
    nothing = pruning(budget={"params": 1.0}, criterion=criterion, end_epoch=2, every_n_epochs=1)
    fit(tmp_path / "watched", watched, nothing, data=Data(workers=workers), max_epochs=3)
    assert [event["prune/epoch"] for event in rows(tmp_path / "watched")] == [1, 2]
    for name, value in alone.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name


def test_a_cut_before_the_first_step(tmp_path):
    module, watch = Stranger(), Watch()
    dense = size(module)
    fit(tmp_path, module, pruning(start_epoch=0, end_epoch=0), watch, max_epochs=1)
    assert watch.validated[0] <= 0.5 * dense


def frozen() -> Stranger:
    module = Stranger()
    module.net.first.requires_grad_(False)
    module.net.down.requires_grad_(False)
    return module


def test_taylor_refuses_to_rank_what_is_frozen(tmp_path):
    run = pruning(criterion=Taylor(members="out"), budget={"params": 0.9})
    with pytest.raises(PruningError, match=r"no parameter of .*first.* ever had a gradient: unfreeze"):
        fit(tmp_path, frozen(), run)


def test_protected_layers_may_be_frozen(tmp_path):
    module = frozen()
    selection = Selection(protect=("net.first", "net.down"))
    fit(
        tmp_path,
        module,
        pruning(criterion=Taylor(members="out"), budget={"params": 0.9}, selection=selection),
    )
    assert (module.net.first[0].out_channels, module.net.down[0].out_channels) == (6, 12)
    assert module.net.last.out_channels < 6


@pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")
def test_a_second_fit_of_the_same_network_does_not_cut_again(tmp_path):
    module, run = Stranger(), pruning()
    trainer = fit(tmp_path, module, run)
    small = size(module)
    trainer.fit_loop.max_epochs = 7
    trainer.fit(module, Data())
    assert trainer.current_epoch == 7
    fit(tmp_path / "again", module, run)
    assert size(module) == small


@pytest.mark.parametrize("criterion", ["l2", "taylor"])
def test_another_network_is_cut_anew(tmp_path, criterion):
    run = pruning(criterion=criterion)
    fit(tmp_path / "first", Stranger(width=8), run)
    module = Stranger()
    dense = size(module)
    fit(tmp_path / "second", module, run)
    assert 0.5 * dense - 150 < size(module) <= 0.5 * dense
    assert run.dense.params == dense


def test_own_times(tmp_path):
    class Late(IterativePruning):
        def should_prune(self, epoch: int) -> bool:
            return epoch == 2

    module, watch = Stranger(), Watch()
    fit(tmp_path, module, Late(budget={"params": 0.5}, start_epoch=1, criterion="l2"), watch)
    assert watch.validated[1] > watch.validated[2] == watch.validated[4]
