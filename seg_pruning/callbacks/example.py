"""What a LightningModule is called with, found without asking the user where that can be done."""

from collections.abc import Mapping

import lightning as L
import torch
from torch import Tensor

from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import ExampleInputs, Inputs

REMEDY = (
    "give IterativePruning(example_inputs=...), or set self.example_input_array in the module: a tensor, "
    "a tuple of arguments or a dict of keyword arguments that its forward takes"
)


class Example:
    """What a module is called with: as the user says, or noise like the first image that it is trained on.

    Args:
        example: what the user says; None where the module may say it.
    """

    def __init__(self, example: ExampleInputs | None) -> None:
        self._example = example
        self.forget()

    def forget(self) -> None:
        """Makes it as new."""
        self.inputs: Inputs | None = None
        self.shape: tuple[int, ...] | None = None

    def given(self, module: L.LightningModule) -> Inputs | None:
        """What the user says that the module is called with."""
        return example_of(module) if self._example is None else Inputs.of(self._example)

    def read(self, module: L.LightningModule) -> None:
        """Takes what the user says, if anything."""
        self.inputs = self.given(module) or self.inputs

    def see(self, batch: object) -> None:
        """Takes noise of the shape of an image of a batch."""
        self.shape = image_shape(batch)
        self.inputs = example_like(self.shape)

    def load(self, shape: list[int] | None) -> None:
        """Goes on with the shape that was seen before."""
        self.shape = None if shape is None else tuple(shape)
        if self.inputs is None and self.shape is not None:
            self.inputs = example_like(self.shape)

    def on(self, module: L.LightningModule) -> Inputs:
        """The inputs where the module is; noise also in its dtype."""
        assert self.inputs is not None
        dtype = module.dtype if self.given(module) is None else None
        assert not isinstance(dtype, str)
        return self.inputs.to(device=module.device, dtype=dtype)


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


def call_with_image(batch: object) -> Inputs | None:
    """A call with the images of a batch, recognised as by `image_shape`; None where there are none.

    Example:
        >>> call_with_image({"image": torch.zeros(4, 3, 8, 8)}).shapes
        ((4, 3, 8, 8),)
    """
    image = _image(batch)
    return None if image is None else Inputs((image,), {})


def _image(batch: object) -> Tensor | None:
    if isinstance(batch, Tensor):
        return batch if torch.is_floating_point(batch) else None
    if isinstance(batch, Mapping):
        batch = [batch["image"]] if "image" in batch else list(batch.values())
    if isinstance(batch, list | tuple):
        return next((found for entry in batch if (found := _image(entry)) is not None), None)
    return None
