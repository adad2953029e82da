"""`pytorch_lightning` is `lightning.pytorch` under another name, with other classes."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping as OtherStopping
from pytorch_lightning.callbacks import ModelCheckpoint as OtherCheckpoint
from torch import nn

from seg_pruning.surgery.note import structure_of
from seg_pruning.tasks import PrunableCheckpoints
from tests.callbacks.modules import Data, SkipNet, pruning, size

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:pytorch_lightning.*"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning:pytorch_lightning.*"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning"),
]


class Other(pl.LightningModule):
    """A project of `pytorch_lightning`: every epoch is worse than the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.net = SkipNet()

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        return nn.functional.binary_cross_entropy_with_logits(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.training_step(batch, batch_idx) + 100 * self.current_epoch)
        self.log("val/params", float(size(self)))

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class OtherMixed(PrunableCheckpoints, Other):
    """The same with the mixin."""


class OtherData(pl.LightningDataModule):
    def train_dataloader(self):
        return Data().train_dataloader()

    def val_dataloader(self):
        return Data().val_dataloader()

    test_dataloader = val_dataloader


def other_trainer(folder, *callbacks, **options) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **{"max_epochs": 5, **options},
    )


def watching(folder) -> tuple[pl.Callback, ...]:
    saver = OtherCheckpoint(folder, filename="{epoch}", monitor="val/loss", save_last=True)
    return saver, OtherStopping("val/loss", patience=2)


def test_a_project_of_the_twin_is_pruned_saved_and_goes_on(tmp_path):
    """Cuts at epochs 1 and 3: "best" is of epoch 3, and patience 2 ends the training at epoch 5, not 2."""
    module, data = Other(), OtherData()
    dense = size(module)
    best, stopping = watching(tmp_path)
    trainer = other_trainer(tmp_path, pruning(), best, stopping, max_epochs=20)
    trainer.fit(module, data)
    assert trainer.current_epoch == 6
    assert best.best_model_path.endswith("epoch=3.ckpt")
    small = size(module)
    assert small <= 0.5 * dense
    assert trainer.test(module, data, ckpt_path="best", verbose=False)[0]["val/params"] == small

    fresh = Other()
    again = other_trainer(tmp_path, own := pruning(), *watching(tmp_path), max_epochs=20)
    again.fit(fresh, data, ckpt_path=tmp_path / "last.ckpt")
    assert size(fresh) == small
    assert own.finished
    assert again.current_epoch == 6  # stopped early: the metric gets worse on


def test_the_mixin_serves_a_module_of_the_twin(tmp_path):
    module, saver = OtherMixed(), OtherCheckpoint(tmp_path)
    other_trainer(tmp_path, pruning(), saver).fit(module, OtherData())
    loaded = OtherMixed.load_from_checkpoint(saver.best_model_path, weights_only=True)
    assert structure_of(loaded).to_dict() == structure_of(module).to_dict()
    assert all(torch.equal(value, module.state_dict()[n]) for n, value in loaded.state_dict().items())
