"""Generated images with polyps, for demos and tests: no download, no licence, no patient."""

import numpy as np
import torch
from rich.progress import track
from typing_extensions import override

from seg_pruning.data.base import BaseDataModule, Parts
from seg_pruning.data.samples import Arrays
from seg_pruning.data.scenes import make_scene


def generate(images_seed: int, part: int, count: int, size: tuple[int, int]) -> Arrays:
    """`count` pictures, each of which follows from the seed, the part, its own number and the size alone.

    Example:
        >>> generate(0, 2, 3, (32, 48)).images.shape
        torch.Size([3, 32, 48, 3])
    """
    images = np.empty((count, *size, 3), dtype=np.uint8)
    masks = np.empty((count, *size), dtype=np.uint8)
    for index in track(range(count), "Generating images", transient=True):
        images[index], masks[index] = make_scene(np.random.default_rng((images_seed, part, index)), *size)
    names = tuple(f"synthetic-{part}-{index:05d}" for index in range(count))
    return Arrays(torch.from_numpy(images), torch.from_numpy(masks), names)


class SyntheticPolyps(BaseDataModule):
    """Generated colonoscopy-like images with none to three polyps each; masks are binary.

    They stand in for real images where there are none. Numbers reached on them say nothing about patients.

    Args:
        counts: Numbers of images for train, val and test.
        images_seed: Decides the pictures. Kept apart from `seed`, so that runs with other seeds see the same
            pictures.
        image_size: Height and width of the images, or one number for both.
        batch_size: Images per batch.
        num_workers: Processes that load; without augmentation there is little for them to do.
        seed: Decides the order and the augmentation of training.
        augment: Whether training images are augmented too; more of them (`counts`) teach more.

    Raises:
        ValueError: An argument that cannot be.
    """

    def __init__(
        self,
        *,
        counts: tuple[int, int, int] = (400, 60, 100),
        images_seed: int = 0,
        image_size: int | tuple[int, int] = 128,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        augment: bool = False,
    ) -> None:
        super().__init__(
            image_size=image_size, batch_size=batch_size, num_workers=num_workers, seed=seed, augment=augment
        )
        if min(counts) < 1:
            raise ValueError(f"Expected `counts` to be three numbers of at least 1, but got {counts}.")
        self.counts = counts
        self.images_seed = images_seed

    @override
    def load_parts(self) -> Parts:
        return Parts(
            *(
                generate(self.images_seed, part, count, self.image_size)
                for part, count in enumerate(self.counts)
            )
        )
