"""What all data modules share: sizes, seeds and loaders."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import albumentations as A
import lightning as L
import torch
from torch.utils.data import DataLoader
from typing_extensions import override

from seg_pruning.data.dataset import Item, SeededSampler, SegmentationDataset
from seg_pruning.data.samples import Arrays
from seg_pruning.data.transforms import Augmentation, default_augmentation


@dataclass(frozen=True)
class Parts:
    """The decoded samples of each part."""

    train: Arrays
    val: Arrays
    test: Arrays


class BaseDataModule(L.LightningDataModule, ABC):
    """Loaders of `{"image": float32 (N, 3, H, W), "mask": int64 (N, H, W), "name": list of N}`.

    Images are normalised with ImageNet's mean and standard deviation. All parts are read, checked and kept
    in memory (four bytes a pixel) by `prepare_data`, before loggers write anything. Batches follow from
    `seed` and the epoch alone: not from the number of workers, nor from an interruption. Validation and test
    keep the order of the names.

    Args:
        image_size: Height and width of the images, or one number for both.
        batch_size: Images per batch. An incomplete last batch of an epoch of training is dropped.
        num_workers: Processes that load.
        seed: Decides the order and the augmentation of training.
        augment: Whether training images are augmented, or the pipeline to do it with.

    Raises:
        ValueError: A size, batch size or number of workers that cannot be.
    """

    #: Number of classes, as a task counts them: 1 is binary.
    classes: int = 1

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int] = 256,
        batch_size: int = 8,
        num_workers: int = 2,
        seed: int = 0,
        augment: bool | A.Compose = True,
    ) -> None:
        super().__init__()
        self.image_size = two_sides(image_size)
        self.batch_size = at_least("batch_size", batch_size, 1)
        self.num_workers = at_least("num_workers", num_workers, 0)
        self.seed = at_least("seed", seed, 0)
        self.augmentation = _augmentation(augment)
        self._parts: Parts | None = None

    @abstractmethod
    def load_parts(self) -> Parts:
        """Read, check, decode and split all samples."""

    @property
    def parts(self) -> Parts:
        """The decoded samples, read at the first call."""
        if self._parts is None:
            self._parts = self.load_parts()
        return self._parts

    @override
    def prepare_data(self) -> None:
        _ = self.parts  # here and not in `setup`, which comes after loggers have written their first files

    @override
    def setup(self, stage: str) -> None:
        _ = self.parts  # on the other processes of a distributed run, where `prepare_data` is not called

    @override
    def train_dataloader(self) -> DataLoader[Item]:
        dataset = SegmentationDataset(self.parts.train, self.augmentation)
        sampler = SeededSampler(len(dataset), self.seed)
        if self.trainer is not None:
            # Workers draw the first batches of a resumed fit before Lightning tells the sampler its epoch.
            sampler.set_epoch(self.trainer.current_epoch)
        return self._loader(dataset, sampler=sampler, drop_last=len(dataset) > self.batch_size)

    @override
    def val_dataloader(self) -> DataLoader[Item]:
        return self._loader(SegmentationDataset(self.parts.val))

    @override
    def test_dataloader(self) -> DataLoader[Item]:
        return self._loader(SegmentationDataset(self.parts.test))

    @override
    def predict_dataloader(self) -> DataLoader[Item]:
        return self.test_dataloader()

    def _loader(
        self, dataset: SegmentationDataset, *, sampler: SeededSampler | None = None, drop_last: bool = False
    ) -> DataLoader[Item]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            drop_last=drop_last,
            persistent_workers=self.num_workers > 0,
        )


def _augmentation(choice: bool | A.Compose) -> Augmentation | None:
    if isinstance(choice, bool):
        return Augmentation(default_augmentation()) if choice else None
    return Augmentation(choice)


def two_sides(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width.

    Raises:
        ValueError: One of them is below 1.

    Example:
        >>> two_sides(128)
        (128, 128)
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return at_least("image_size", height, 1), at_least("image_size", width, 1)


def at_least(name: str, value: int, least: int) -> int:
    """`value`, an argument called `name`, unless it is too small.

    Raises:
        ValueError: It is.
    """
    if value < least:
        raise ValueError(f"Expected `{name}` to be at least {least}, but got {value}.")
    return value
