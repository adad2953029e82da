"""What a LightningModule is called with, found without asking the user where that can be done."""

from collections.abc import Mapping

import lightning as L
import torch
from torch import Tensor

from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import Inputs

REMEDY = (
    "give IterativePruning(example_inputs=...), or set self.example_input_array in the module: a tensor, "
    "a tuple of arguments or a dict of keyword arguments that its forward takes"
)


def example_of(module: L.LightningModule) -> Inputs | None:
    """The module's own `example_input_array`, if it has one."""
    example = module.example_input_array
    return None if example is None else Inputs.of(example)


def example_like(shape: tuple[int, ...]) -> Inputs:
    """Noise in place of an image: every run, also one that goes on from a checkpoint, gets the same."""
    return Inputs((torch.randn(shape, generator=torch.Generator().manual_seed(0)),), {})


def image_shape(batch: object) -> tuple[int, ...]:
    """The shape of one image of a batch: `(1, C, H, W)` for images `(N, C, H, W)`.

    The image is the first floating tensor, the entry called `image` first.

    Raises:
        PruningError: there is none.

    Example:
        >>> image_shape({"mask": torch.zeros(4, 8, 8), "image": torch.zeros(4, 3, 8, 8)})
        (1, 3, 8, 8)
    """
    image = _image(batch)
    if image is None or not image.ndim:
        raise PruningError(f"no image can be recognised in a batch of type {type(batch).__name__}; {REMEDY}")
    return (1, *image.shape[1:])


def _image(batch: object) -> Tensor | None:
    if isinstance(batch, Tensor):
        return batch if torch.is_floating_point(batch) else None
    if isinstance(batch, Mapping):
        batch = [batch["image"]] if "image" in batch else list(batch.values())
    if isinstance(batch, list | tuple):
        return next((found for entry in batch if (found := _image(entry)) is not None), None)
    return None
