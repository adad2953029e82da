"""A run that is interrupted and goes on with fresh objects, to set beside one that never was."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from seg_pruning.surgery.note import structure_of
from tests.callbacks.modules import Data, Stranger, fit

GOING_ON = [  # both runs write to one folder, on purpose
    pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning"),
    pytest.mark.filterwarnings("ignore:Experiment logs directory:UserWarning"),
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


def assert_goes_on(
    folder: Path,
    own: Callable[[], Sequence[L.Callback]],
    *,
    epoch: int | None = None,
    step: int | None = None,
    module: Callable[[], L.LightningModule] = Stranger,
    max_epochs: int,
) -> L.Trainer:
    """A run that goes on with fresh objects ends, to the last bit, like one that was never interrupted.

    It is cut off after `epoch`, of three steps, in data whose order follows from the epoch; or before `step`,
    where all images are the same, since Lightning does not skip batches that were seen before.
    """
    assert (epoch is None) != (step is None)
    by_step = epoch is None
    last = step if by_step else 3 * (epoch + 1)
    file = f"step={step}.ckpt" if by_step else f"epoch={epoch}.ckpt"

    def run(place: Path, *others: L.Callback, ckpt_path: Path | None = None) -> L.Trainer:
        saver = ModelCheckpoint(
            place,
            filename="{step}" if by_step else "{epoch}",
            every_n_train_steps=1 if by_step else None,
            save_top_k=-1,
        )
        data = Data(same=by_step, by_epoch=not by_step)
        callbacks = (SeedEachStep(), *own(), saver, *others)
        torch.manual_seed(ckpt_path is not None)  # what goes on does not start from the same weights
        return fit(place, module(), *callbacks, data=data, ckpt_path=ckpt_path, max_epochs=max_epochs)

    whole = run(folder / "whole")
    with pytest.raises(ConnectionError):
        run(folder / "cut", Interrupt(last))
    resumed = run(folder / "cut", ckpt_path=folder / "cut" / file)
    assert_equal_runs(whole, resumed)
    return resumed


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
    mine, theirs = list(_leaves(a)), list(_leaves(b))
    assert [path for path, _ in mine] == [path for path, _ in theirs]
    for (path, x), (_, y) in zip(mine, theirs, strict=True):
        assert type(x) is type(y), path
        assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y, path


def _leaves(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, object]]:
    """What is in nested containers, and the containers' types, by their places."""
    if isinstance(value, dict | list | tuple):
        yield path, type(value).__name__
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, (*path, key))
    else:
        yield path, value
