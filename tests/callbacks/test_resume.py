"""A fit that is interrupted and goes on with fresh objects equals one that never was."""

from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.note import structure_of
from tests.callbacks.modules import Data, Stranger, fit, pruning, size

pytestmark = [  # both runs write to one folder, on purpose
    pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning"),
    pytest.mark.filterwarnings("ignore:Experiment logs directory:UserWarning"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint:UserWarning"),
]


class SeedEachStep(L.Callback):
    """Lightning does not store random states: the seed follows from the step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.manual_seed(1000 + trainer.global_step)


class Interrupt(L.Callback):
    """Stops a run like a lost connection, once the checkpoint of `step` has been written."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise ConnectionError


def run(folder: Path, *callbacks: L.Callback, ckpt_path: Path | None = None, **options: object) -> L.Trainer:
    """All objects are new at each call; the order of the data follows from the epoch."""
    options.setdefault("data", Data(by_epoch=True))
    own = pruning(criterion=options.pop("criterion", "l2"), schedule=options.pop("schedule", "linear"))
    torch.manual_seed(ckpt_path is not None)  # what goes on does not start from the same weights
    module = Stranger(options.pop("optimizer", "adamw"))
    saver = options.pop("saver", None) or ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    return fit(
        folder, module, SeedEachStep(), own, saver, *callbacks, ckpt_path=ckpt_path, max_epochs=6, **options
    )


def assert_equal_runs(one: L.Trainer, other: L.Trainer) -> None:
    a, b = one.lightning_module, other.lightning_module
    assert structure_of(a).to_dict() == structure_of(b).to_dict()
    assert one.global_step == other.global_step
    assert_equal(a.state_dict(), b.state_dict())
    assert_equal(one.optimizers[0].state_dict(), other.optimizers[0].state_dict())
    assert_equal(
        one.lr_scheduler_configs[0].scheduler.state_dict(),
        other.lr_scheduler_configs[0].scheduler.state_dict(),
    )


def assert_equal(a: object, b: object) -> None:
    """The same to the last bit, in nested containers."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4], ids=lambda epoch: f"after epoch {epoch}")
@pytest.mark.parametrize(("criterion", "optimizer"), [("taylor", "adamw"), ("l2", "sgd")])
def test_between_epochs(tmp_path, criterion, optimizer, after):
    """Cuts are at the start of epochs 1 and 3; there are 3 steps in an epoch."""
    options = {"criterion": criterion, "optimizer": optimizer}
    whole = run(tmp_path / "whole", **options)
    with pytest.raises(ConnectionError):
        run(tmp_path / "cut", Interrupt(3 * (after + 1)), **options)
    file = tmp_path / "cut" / f"epoch={after}.ckpt"
    resumed = run(tmp_path / "cut", ckpt_path=file, **options)
    assert size(resumed.lightning_module) < size(Stranger())
    assert_equal_runs(whole, resumed)


@pytest.mark.filterwarnings(
    "ignore:Checkpoint directory:UserWarning", "ignore:You're resuming from a checkpoint"
)
@pytest.mark.parametrize("step", [1, 4, 5, 7, 10, 11])
@pytest.mark.parametrize("criterion", ["taylor", "l2"])
def test_in_the_middle_of_an_epoch(tmp_path, criterion, step):
    """A cut that was made in the epoch is not made again, and one that is due later is not lost.

    Lightning does not skip batches that were seen before the interruption: here all are the same.
    """

    def saver(folder: Path) -> ModelCheckpoint:
        return ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)

    def go(folder: Path, *callbacks: L.Callback, ckpt_path: Path | None = None) -> L.Trainer:
        data = Data(same=True)
        return run(
            folder, *callbacks, criterion=criterion, data=data, saver=saver(folder), ckpt_path=ckpt_path
        )

    whole = go(tmp_path / "whole")
    with pytest.raises(ConnectionError):
        go(tmp_path / "cut", Interrupt(step))
    resumed = go(tmp_path / "cut", ckpt_path=tmp_path / "cut" / f"step={step}.ckpt")
    assert_equal_runs(whole, resumed)


def test_last_is_found_by_its_name(tmp_path):
    def go(*callbacks: L.Callback, **options: object) -> L.Trainer:
        return run(
            tmp_path,
            *callbacks,
            saver=ModelCheckpoint(tmp_path / "c", save_last=True),
            schedule="cubic",
            **options,
        )

    with pytest.raises(ConnectionError):
        go(Interrupt(7))
    trainer = go(ckpt_path="last")
    assert trainer.current_epoch == 6
    assert structure_of(trainer.lightning_module) is not None


def test_after_the_last_cut_and_after_the_end(tmp_path):
    whole = run(tmp_path)
    file = tmp_path / "epoch=5.ckpt"
    module, own = Stranger(), pruning()
    longer = fit(tmp_path, module, own, ckpt_path=file, max_epochs=8)
    assert longer.current_epoch == 8
    assert size(module) == size(whole.lightning_module)
    ended = pruning()
    fit(tmp_path, Stranger(), ended, ckpt_path=file, max_epochs=6)
    assert ended.finished
    assert ended.inputs.shapes == ((1, 3, 8, 8),)


def test_monitors_go_on_too(tmp_path):
    """The wait of early stopping began at the cut, also where the run was interrupted after it."""
    stopped = []
    for interrupt in (None, 7):
        folder = tmp_path / str(interrupt)
        stopping = EarlyStopping("val/loss", patience=2)
        path = None
        if interrupt is not None:
            with pytest.raises(ConnectionError):
                run(folder, EarlyStopping("val/loss", patience=2), Interrupt(interrupt))
            path = folder / "epoch=1.ckpt"
        run(folder, stopping, ckpt_path=path)
        stopped.append(stopping.stopped_epoch)
    assert stopped == [5, 5]


def test_a_dense_training_goes_on_with_pruning(tmp_path):
    fit(tmp_path, Stranger(), max_epochs=3)
    file = tmp_path / "checkpoints" / "epoch=2.ckpt"
    with pytest.raises(PruningError, match=r"cuts of epochs 1 were not made before.*start_epoch=4"):
        fit(tmp_path, Stranger(), pruning(), ckpt_path=file)
    with pytest.raises(PruningError, match=r"gradients of at least one epoch.*start_epoch=4"):
        fit(tmp_path, Stranger(), pruning(criterion="taylor", start_epoch=3), ckpt_path=file)
    for criterion, start in (("l2", 3), ("taylor", 4)):
        module = Stranger()
        own = pruning(criterion=criterion, start_epoch=start, end_epoch=start)
        fit(tmp_path, module, own, ckpt_path=file)
        assert size(module) <= 0.5 * size(Stranger())
