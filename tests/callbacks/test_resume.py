"""A fit that is interrupted and goes on with fresh objects equals one that never was."""

from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.note import structure_of
from tests.callbacks.interrupted import GOING_ON, Interrupt, SeedEachStep, assert_goes_on
from tests.callbacks.modules import Data, Stranger, fit, pruning, size

pytestmark = [*GOING_ON, pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")]


def run(
    folder: Path,
    *callbacks: L.Callback,
    saver: ModelCheckpoint | None = None,
    schedule: str = "linear",
    ckpt_path: Path | str | None = None,
) -> L.Trainer:
    """All objects are new at each call; the order of the data follows from the epoch."""
    torch.manual_seed(ckpt_path is not None)  # what goes on does not start from the same weights
    own = saver or ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    parts = (SeedEachStep(), pruning(schedule=schedule), own, *callbacks)
    return fit(folder, Stranger(), *parts, data=Data(by_epoch=True), ckpt_path=ckpt_path, max_epochs=6)


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4], ids=lambda epoch: f"after epoch {epoch}")
@pytest.mark.parametrize(("criterion", "optimizer"), [("taylor", "adamw"), ("l2", "sgd")])
def test_between_epochs(tmp_path, criterion, optimizer, after):
    """Cuts are at the start of epochs 1 and 3; there are 3 steps in an epoch."""
    resumed = assert_goes_on(
        tmp_path,
        lambda: [pruning(criterion=criterion)],
        epoch=after,
        module=partial(Stranger, optimizer),
        max_epochs=6,
    )
    assert size(resumed.lightning_module) < size(Stranger())


@pytest.mark.parametrize("step", [1, 4, 5, 6, 7, 10, 11])
@pytest.mark.parametrize("criterion", ["taylor", "l2"])
def test_in_the_middle_of_an_epoch(tmp_path, criterion, step):
    """A cut that was made in the epoch is not made again, and one that is due later is not lost.

    Step 6 is after the last batch of the epoch, whose validation and end a resumed run does not get.
    """
    assert_goes_on(tmp_path, lambda: [pruning(criterion=criterion)], step=step, max_epochs=6)


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
