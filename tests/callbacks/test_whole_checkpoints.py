"""A process that is killed while it writes a checkpoint leaves the one that was there."""

import os
import pickle
import signal
from pathlib import Path

import lightning as L
import pytest
import pytorch_lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO

from seg_pruning.callbacks.whole_checkpoints import WholeCheckpoints, write_whole_
from tests.callbacks.modules import Stranger, fit, pruning


class KilledInPickling:
    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_kill_leaves_the_old_file_and_the_next_writing_tidies_up(tmp_path):
    file, other = tmp_path / "c" / "last[1].ckpt", tmp_path / "c" / ".last.ckpt.0123.draft"
    own = WholeCheckpoints(TorchCheckpointIO())
    own.save_checkpoint({"epoch": 1}, file)
    other.touch()
    if (pid := os.fork()) == 0:
        own.save_checkpoint(
            {"epoch": 2, "weights": torch.zeros(100_000), "then": KilledInPickling()}, str(file)
        )
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert len(list(file.parent.iterdir())) == 3
    assert own.load_checkpoint(file, weights_only=True) == {"epoch": 1}
    own.save_checkpoint({"epoch": 3}, str(file))
    assert own.load_checkpoint(file, map_location="cpu", weights_only=True) == {"epoch": 3}
    assert sorted(file.parent.iterdir()) == [other, file]
    own.remove_checkpoint(str(file))
    assert not file.exists()


def test_an_error_in_writing_leaves_the_old_file(tmp_path):
    file = tmp_path / "last.ckpt"
    own = WholeCheckpoints(TorchCheckpointIO())
    own.save_checkpoint({"epoch": 1}, file)
    with pytest.raises((AttributeError, pickle.PicklingError), match="pickle"):
        own.save_checkpoint({"epoch": lambda: 2}, file)
    assert own.load_checkpoint(file) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_is_never_of_a_file_that_is_gone(tmp_path):
    first, second, link = (tmp_path / name for name in ("epoch=0.ckpt", "epoch=1.ckpt", "last.ckpt"))
    own = WholeCheckpoints(TorchCheckpointIO())
    own.save_checkpoint({"epoch": 0}, first)
    link.symlink_to(first.name)
    (tmp_path / "other.ckpt").symlink_to("elsewhere.ckpt")
    own.save_checkpoint({"epoch": 1}, second)
    own.remove_checkpoint(first)
    assert own.load_checkpoint(link) == {"epoch": 1}
    own.remove_checkpoint(second)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.ckpt", "other.ckpt"]


def test_what_is_not_local_goes_the_usual_way():
    memory = "memory://folder/last.ckpt"
    own = WholeCheckpoints(TorchCheckpointIO())
    own.save_checkpoint({"epoch": 1}, memory)
    assert own.load_checkpoint(memory) == {"epoch": 1}
    with pytest.raises(TypeError, match="storage_options"):
        own.save_checkpoint({}, "last.ckpt", storage_options={"a": 1})
    assert not Path("last.ckpt").exists()


@pytest.mark.parametrize("package", [L, pytorch_lightning])
def test_trainers_of_both_packages(package):
    trainer = package.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, barebones=True)
    before = trainer.strategy.checkpoint_io
    write_whole_(trainer)
    write_whole_(trainer)
    assert isinstance(trainer.strategy.checkpoint_io, WholeCheckpoints)
    assert trainer.strategy.checkpoint_io._inner is before


def test_a_project_s_own_way_stays(tmp_path):
    class Own(TorchCheckpointIO):
        pass

    for own in (Own(), AsyncCheckpointIO()):
        folder = tmp_path / type(own).__name__
        saver = ModelCheckpoint(folder / "c", save_last=True)
        trainer = fit(folder, Stranger(), pruning(), saver, plugins=[own])
        assert trainer.strategy.checkpoint_io is own
        assert torch.load(saver.last_model_path, weights_only=True)["seg_pruning"]
