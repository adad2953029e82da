"""What a LightningModule is called with, found without asking the user where that can be done."""

from collections.abc import Mapping

import lightning as L
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import Inputs

_REMEDY = (
    "give IterativePruning(example_inputs=...), or set self.example_input_array in the module: a tensor, "
    "a tuple of arguments or a dict of keyword arguments that its forward takes"
)


def example_of(module: L.LightningModule) -> Inputs | None:
    """The module's own `example_input_array`, if it has one."""
    example = module.example_input_array
    return None if example is None else Inputs.of(example)


def example_from_data(trainer: L.Trainer) -> Inputs:
    """One image of the first training batch; the random state of training is not touched.

    Raises:
        PruningError: a batch is neither a tensor, nor a sequence or mapping that begins with one.
    """
    loader = trainer.train_dataloader
    if loader is None:
        raise PruningError(f"there is no training data to take an example from; {_REMEDY}")
    with isolate_rng():
        batch = next(iter(loader))
    image = _image(batch)
    if image is None:
        raise PruningError(f"no image can be recognised in a batch of type {type(batch).__name__}; {_REMEDY}")
    return Inputs((image[:1],), {})


def _image(batch: object) -> Tensor | None:
    """The first floating tensor of a batch, the entry called `image` first."""
    if isinstance(batch, Tensor):
        return batch if torch.is_floating_point(batch) else None
    if isinstance(batch, Mapping):
        batch = [batch["image"]] if "image" in batch else list(batch.values())
    if isinstance(batch, list | tuple):
        return next((found for entry in batch if (found := _image(entry)) is not None), None)
    return None
