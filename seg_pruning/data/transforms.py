"""What happens to a decoded sample on its way into a batch."""

from collections.abc import Callable
from random import Random

import albumentations as A
import numpy as np
import torch
from torch import Tensor

from seg_pruning.data.decode import Pixels

# ImageNet's, in the units of 8-bit pixels: what pretrained encoders expect.
MEAN = torch.tensor([0.485, 0.456, 0.406]) * 255
STD = torch.tensor([0.229, 0.224, 0.225]) * 255

Transform = Callable[[Pixels, Pixels, int], tuple[Pixels, Pixels]]


def default_augmentation() -> A.Compose:
    """Flips, rotation, scale, shift and colour: what leaves a polyp a polyp and a nucleus a nucleus."""
    return A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.VerticalFlip(p=0.5),
            A.Affine(scale=(0.8, 1.25), rotate=(-45, 45), translate_percent=(-0.1, 0.1), p=0.8),
            A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02, p=0.8),
        ]
    )


class Augmentation:
    """An albumentations pipeline whose every draw comes from the seed of the call.

    Neither the worker, nor the epoch, nor what was drawn before changes a result, so a run repeats with any
    number of workers, and goes on after an interruption as if there had been none.

    Args:
        pipeline: Keeps the height and width of what it is given.
    """

    def __init__(self, pipeline: A.Compose) -> None:
        self.pipeline = pipeline

    def __call__(self, image: Pixels, mask: Pixels, seed: int) -> tuple[Pixels, Pixels]:
        """The augmented image `(H, W, 3)` and mask `(H, W)`.

        Raises:
            ValueError: The pipeline changed the size.
        """
        # One stream for all: `set_random_seed` gives each transform the same numbers, so all act or none.
        self.pipeline.set_random_state(np.random.default_rng(seed), Random(seed))
        result = self.pipeline(image=image, mask=mask)
        if result["image"].shape != image.shape or result["mask"].shape != mask.shape:
            raise ValueError(
                f"The augmentation made {result['image'].shape[:2]} of an image of {image.shape[:2]} "
                "(height, width). Images of a batch have one size: leave out what crops, pads or resizes, "
                "and set `image_size`."
            )
        return result["image"], result["mask"]


def normalise(image: Pixels) -> Tensor:
    """Float32 `(3, H, W)` of uint8 RGB `(H, W, 3)`, with ImageNet's mean and standard deviation.

    Example:
        >>> normalise(np.zeros((2, 2, 3), dtype=np.uint8))[:, 0, 0]
        tensor([-2.1179, -2.0357, -1.8044])
    """
    channels_last = torch.from_numpy(np.ascontiguousarray(image)).float().sub_(MEAN).div_(STD)
    return channels_last.permute(2, 0, 1).contiguous()
