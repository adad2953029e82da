"""The smallest data and network on which a task can be trained, tested and loaded again."""

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override


class TinyImages(Dataset):
    """Noise whose mask is the first channel in steps, so that one convolution can learn it."""

    def __init__(self, *, images: int, size: int, classes: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.rand(images, 3, size, size, generator=generator)
        self.masks = (self.images[:, 0] * max(classes, 2)).long()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, object]:
        return {"image": self.images[index], "mask": self.masks[index], "name": f"image{index}"}


class TinyData(L.LightningDataModule):
    def __init__(self, images: int = 6, size: int = 32, classes: int = 1, broken: bool = False) -> None:
        super().__init__()
        self.images, self.size, self.classes, self.broken = images, size, classes, broken

    @override
    def setup(self, stage: str) -> None:
        if self.broken:
            raise ValueError("broken data")

    def _loader(self, seed: int) -> DataLoader:
        images = TinyImages(images=self.images, size=self.size, classes=self.classes, seed=seed)
        return DataLoader(images, batch_size=2)

    @override
    def train_dataloader(self) -> DataLoader:
        return self._loader(0)

    @override
    def val_dataloader(self) -> DataLoader:
        return self._loader(1)

    @override
    def test_dataloader(self) -> DataLoader:
        return self._loader(2)

    @override
    def predict_dataloader(self) -> DataLoader:
        return self._loader(2)


class TinyNet(nn.Module):
    def __init__(self, width: int = 4, classes: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.head = nn.Conv2d(width, classes, 1)

    @override
    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.stem(images).relu())
