"""torchgeo's task and data module as they are: batches are dicts, augmented on the device."""

import warnings
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import Dataset

from tests.callbacks.modules import pruning, size, trainer_in

# torchgeo and what it imports warn about their own use of others.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torchgeo.datamodules import NonGeoDataModule
    from torchgeo.trainers import SemanticSegmentationTask


class Scenes(Dataset):
    """Noise in bands; the mask says which of the first is the brightest."""

    def __init__(self, split: str = "train", side: int = 16, bands: int = 4) -> None:
        generator = torch.Generator().manual_seed(len(split))
        self.images = torch.rand(8, bands, side, side, generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"image": self.images[index] * 255, "mask": self.images[index, :3].argmax(0)}


class Data(NonGeoDataModule):
    mean, std = torch.tensor(0.0), torch.tensor(255.0)

    def setup(self, stage: str) -> None:
        for split in ("train", "val", "test"):
            setattr(self, f"{split}_dataset", self.dataset_class(split, **self.kwargs))


def fit(folder: Path, task: L.LightningModule, data: L.LightningDataModule, **options) -> L.Trainer:
    saver = ModelCheckpoint(folder / "c", monitor="val_loss", save_last=True)
    own = pruning(budget={"params": 0.5}, criterion="taylor", schedule="cubic", **options)
    trainer = trainer_in(folder, [EarlyStopping("val_loss", patience=3), own, saver], max_epochs=5)
    trainer.fit(task, datamodule=data)
    return trainer


@pytest.mark.parametrize("criterion", ["taylor", "l2"])
def test_segmentation(tmp_path, criterion):
    task = SemanticSegmentationTask(model="fcn", in_channels=4, num_classes=3, num_filters=8, lr=1e-2)
    data, dense = Data(Scenes, batch_size=4), size(task)
    trainer = fit(tmp_path, task, data)
    assert size(task) <= 0.5 * dense
    assert trainer.current_epoch == 5
    scores = trainer.test(task, datamodule=data, ckpt_path="best", verbose=False)
    assert 0 <= scores[0]["test_MulticlassJaccardIndex"] <= 1
    fresh = SemanticSegmentationTask(model="fcn", in_channels=4, num_classes=3, num_filters=8)
    saver = ModelCheckpoint(tmp_path / "c", monitor="val_loss")
    again = trainer_in(tmp_path / "again", [pruning(), EarlyStopping("val_loss"), saver], logger=False)
    found = again.test(fresh, datamodule=data, ckpt_path=tmp_path / "c" / "last.ckpt", verbose=False)
    assert size(fresh) == size(task)
    assert found[0].keys() == scores[0].keys()


def test_a_unet_with_a_frozen_encoder(tmp_path):
    """Nothing of the frozen part gets gradients: what leaves is judged by its weights."""
    task = SemanticSegmentationTask(
        model="unet", backbone="resnet18", in_channels=4, num_classes=3, freeze_backbone=True
    )
    frozen = [name for name, p in task.named_parameters() if not p.requires_grad]
    dense = size(task)
    data = Data(Scenes, batch_size=4, side=32)
    trainer = trainer_in(tmp_path, [pruning(end_epoch=1)], max_epochs=2, logger=False)
    trainer.fit(task, datamodule=data)
    assert size(task) <= 0.5 * dense
    assert [name for name, p in task.named_parameters() if not p.requires_grad] == frozen
