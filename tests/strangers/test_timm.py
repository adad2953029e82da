"""A classifier of timm in a LightningModule: logits, no maps."""

import lightning as L
import pytest
import timm
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Accuracy

from tests.callbacks.modules import pruning, size, trainer_in


class Classifier(L.LightningModule):
    """As on timm's pages: parameters in two groups, a metric as a submodule, a step that logs."""

    def __init__(self, name: str, classes: int = 5) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.backbone = timm.create_model(name, num_classes=classes)
        self.loss = nn.CrossEntropyLoss(label_smoothing=0.1)
        self.accuracy = Accuracy("multiclass", num_classes=classes)

    def forward(self, x):
        return self.backbone(x)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = self.loss(self(images), labels)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.accuracy(self(images), labels)
        self.log("val/accuracy", self.accuracy)

    def configure_optimizers(self):
        head = list(self.backbone.get_classifier().parameters())
        body = [p for p in self.backbone.parameters() if not any(p is other for other in head)]
        optimizer = torch.optim.AdamW([{"params": body, "lr": 1e-4}, {"params": head}], lr=1e-3)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 1e-3, total_steps=self.trainer.estimated_stepping_batches
        )
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


@pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_half_of_it_leaves_while_it_trains(tmp_path, name):
    torch.manual_seed(0)
    module = Classifier(name)
    side = module.backbone.default_cfg["input_size"][-1]
    side = side if name == "test_vit" else 64
    images = torch.rand(6, 3, side, side)
    loader = DataLoader(TensorDataset(images, torch.arange(6) % 5), batch_size=3)
    dense = size(module)
    own = pruning(criterion="taylor", schedule="cubic")
    trainer = trainer_in(tmp_path, [own], max_epochs=5)
    trainer.fit(module, loader, loader)
    assert own.finished
    assert 0.25 * dense < size(module) <= 0.5 * dense
    assert module(images).shape == (6, 5)
    again = Classifier(name)
    trainer_in(tmp_path / "again", [pruning()], logger=False).validate(
        again, loader, ckpt_path=tmp_path / "checkpoints" / "last.ckpt", verbose=False
    )
    assert size(again) == size(module)
