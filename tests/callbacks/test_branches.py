"""Groups of a convolution that leave in a training, which goes on from a checkpoint as if never stopped."""

from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from seg_pruning.pruning.options import Selection
from seg_pruning.surgery.note import structure_of
from tests.callbacks.modules import Data, Stranger, fit, pruning

pytestmark = [
    pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint:UserWarning"),
]


class Paths(Stranger):
    """Three paths, of which one is nearly nothing."""

    def __init__(self) -> None:
        super().__init__()
        read, paths = nn.Conv2d(3, 24, 1), nn.Conv2d(24, 24, 3, padding=1, groups=3)
        with torch.no_grad():
            for parameter in (*read.parameters(), *paths.parameters()):
                parameter[8:16] *= 1e-4
        self.net = nn.Sequential(read, nn.ReLU(), paths, nn.ReLU(), nn.Conv2d(24, 1, 1))


class Stop(L.Callback):
    """Breaks off in the first step of an epoch; the seed follows from the step."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        torch.manual_seed(1000 + trainer.global_step)  # Lightning does not store random states
        if trainer.current_epoch == self.epoch:
            raise ConnectionError


def run(folder: Path, *, stop: int = -1, ckpt_path: Path | None = None) -> Stranger:
    """Cuts at epochs 1 and 3."""
    torch.manual_seed(ckpt_path is not None)  # what goes on does not start from the same weights
    saver, module = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1), Paths()
    own = pruning(budget={"params": 0.3}, selection=Selection(floor=0.0))
    fit(folder, module, Stop(stop), own, saver, data=Data(by_epoch=True), ckpt_path=ckpt_path)
    return module


def test_a_training_that_lost_groups_goes_on(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(ConnectionError):
        run(tmp_path / "cut", stop=2)
    resumed = run(tmp_path / "resumed", ckpt_path=tmp_path / "cut" / "epoch=1.ckpt")
    assert whole.net[2].groups == resumed.net[2].groups < 3
    assert structure_of(whole).to_dict() == structure_of(resumed).to_dict()
    for mine, theirs in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    (plan,) = structure_of(whole).plans  # of both cuts, in channels of the dense network
    assert not {i for kept in plan.kept.values() for i in kept} & set(range(8, 16))
