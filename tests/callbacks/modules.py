"""A stranger's project, as small as it gets: a LightningModule that never heard of pruning, and its data."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from seg_pruning.callbacks import IterativePruning
from seg_pruning.tasks import PrunableCheckpoints


class SkipNet(nn.Module):
    """Down, up, and a skip that is concatenated; batch norms; about a thousand parameters."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.down = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, padding=1, stride=2, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
        )
        self.up = nn.Upsample(scale_factor=2)
        self.last = nn.Conv2d(3 * width, width, 1)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        shallow = self.first(images)
        return self.head(self.last(torch.cat([shallow, self.up(self.down(shallow))], 1)).relu())


OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
}


class Stranger(L.LightningModule):
    """Batches are tuples; optimizer and scheduler are its own; it says nothing of what its forward takes."""

    def __init__(self, optimizer: str = "adamw", width: int = 6) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.optimizer = optimizer
        self.net = SkipNet(width)
        self.configured = 0
        self.steps = 0

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.steps += 1
        images, masks = batch
        noisy = images + 0.1 * torch.randn_like(
            images
        )  # whoever disturbs the random state changes the weights
        return nn.functional.binary_cross_entropy_with_logits(self(noisy), masks)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, masks = batch
        loss = nn.functional.binary_cross_entropy_with_logits(self(images), masks)
        # Every epoch is worse than the one before: without a reset the first stays the best.
        self.log("val/loss", loss + 100 * self.current_epoch)
        self.log("val/params", float(size(self)))

    test_step = validation_step

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self(batch[0])

    def configure_optimizers(self) -> dict[str, object]:
        self.configured += 1
        optimizer = OPTIMIZERS[self.optimizer](self.parameters())
        return {
            "optimizer": optimizer,
            "lr_scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
        }


class Mixed(PrunableCheckpoints, Stranger):
    """The same with the mixin, so that `load_from_checkpoint` works."""


class Data(L.LightningDataModule):
    """Noise; the mask is where the first channel is bright. Shuffled by the random state, or by epoch."""

    def __init__(
        self, images: int = 6, *, workers: int = 0, same: bool = False, by_epoch: bool = False
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        values = torch.rand(1 if same else images, 3, 8, 8, generator=generator).expand(images, -1, -1, -1)
        self.pairs = TensorDataset(values, (values[:, :1] > 0.5).float())
        self.workers = workers
        self.sampler = DistributedSampler(self.pairs, num_replicas=1, rank=0) if by_epoch else None

    def train_dataloader(self) -> DataLoader:
        return DataLoader(
            self.pairs,
            batch_size=2,
            shuffle=self.sampler is None,
            sampler=self.sampler,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.pairs, batch_size=2)

    test_dataloader = predict_dataloader = val_dataloader


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def pruning(**options: Any) -> IterativePruning:
    """Cuts at epochs 1 and 3, to half of the parameters."""
    return IterativePruning(
        **{
            "budget": {"params": 0.5},
            "criterion": "l2",
            "schedule": "linear",
            "start_epoch": 1,
            "every_n_epochs": 2,
            "end_epoch": 3,
            **options,
        }
    )


def trainer_in(folder: Path, callbacks: Sequence[L.Callback] = (), **options: Any) -> L.Trainer:
    """A quiet trainer of five epochs that keeps all checkpoints and the last one."""
    saver = ModelCheckpoint(folder / "checkpoints", filename="{epoch}", save_top_k=-1, save_last=True)
    own = [] if any(isinstance(callback, ModelCheckpoint) for callback in callbacks) else [saver]
    settings = {
        "max_epochs": 5,
        "accelerator": "cpu",
        "devices": 1,
        "logger": CSVLogger(folder, name="", version=""),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        "default_root_dir": folder,
        **options,
    }
    return L.Trainer(callbacks=[*callbacks, *own], **settings)


def fit(folder: Path, module: L.LightningModule, *callbacks: L.Callback, **options: Any) -> L.Trainer:
    """Trains `module` from seed 0, on the data above."""
    data = options.pop("data", None) or Data()
    ckpt_path = options.pop("ckpt_path", None)
    trainer = trainer_in(folder, callbacks, **options)
    L.seed_everything(0, verbose=False)
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return trainer
