"""What a LightningModule is called with, found without asking the user where that can be done."""

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from seg_pruning.callbacks.recorder import Recorder, is_plain
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import ExampleInputs, Inputs

REMEDY = (
    "give IterativePruning(example_inputs=...), or set self.example_input_array in the module: a tensor, "
    "a tuple of arguments or a dict of keyword arguments that its forward takes. Where only a part of the "
    "module is a network, name it: IterativePruning(module=...)"
)


class Example:
    """What the pruned network is called with: as the user says, or as training is seen to call it.

    Attributes:
        inputs: one call; None where it is not known yet.
        of_image: whether it was made from an image of a batch, so that other calls can be.

    Args:
        example: what the user says; None where the module may say it.
    """

    def __init__(self, example: ExampleInputs | None) -> None:
        self._example = example
        self._listener = Recorder(1)
        self.forget()

    def forget(self) -> None:
        """Makes it as new."""
        self.inputs: Inputs | None = None
        self.of_image = False
        self._found: Inputs | None = None
        self.stop()

    def given(self, module: L.LightningModule, network: nn.Module) -> Inputs | None:
        """What the user says that the network is called with; the module's own example is of the module."""
        if self._example is not None:
            return Inputs.of(self._example)
        return example_of(module) if network is module else None

    def read(self, module: L.LightningModule, network: nn.Module) -> None:
        """Takes what the user says, if anything."""
        self.inputs = self.given(module, network) or self.inputs

    def see(self, batch: object) -> None:
        """Takes noise of the shape of an image of a batch.

        Raises:
            PruningError: no image can be recognised.
        """
        self._take(example_like(image_shape(batch)))
        self.of_image = True

    def listen(self, trainer: L.Trainer, network: nn.Module) -> None:
        """Waits for a call of the network."""
        self.forget()
        self._listener.attach(network, trainer)
        self._listener.begin(record=True)

    @property
    def heard(self) -> bool:
        """Whether the call that was waited for has come."""
        return self._listener.call is not None

    def hear(self) -> None:
        """Takes noise like the call that has come.

        Raises:
            PruningError: none has come.
        """
        call = self._listener.call
        self.stop()
        if call is None:
            raise PruningError(f"the network that is to be pruned was not called in training; {REMEDY}")
        self._take(noise_like(call))

    def stop(self) -> None:
        """Waits no more."""
        self._listener.detach()

    def state_dict(self) -> dict[str, Any] | None:
        """What was found, in plain types and tensors; None where there is nothing or it cannot be told so."""
        if self._found is None:
            return None
        found = {"args": self._found.args, "kwargs": dict(self._found.kwargs), "of_image": self.of_image}
        return found if is_plain(found) else None

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Goes on with what was found before."""
        if state is not None and self.inputs is None:
            self._take(Inputs(tuple(state["args"]), state["kwargs"]))
            self.of_image = state["of_image"]

    def _take(self, inputs: Inputs) -> None:
        self.inputs = self._found = inputs

    def on(self, module: L.LightningModule, network: nn.Module) -> Inputs:
        """The inputs where the module is; noise also in its dtype."""
        assert self.inputs is not None
        dtype = module.dtype if self.given(module, network) is None else None
        assert not isinstance(dtype, str)
        return self.inputs.to(device=module.device, dtype=dtype)


def example_of(module: L.LightningModule) -> Inputs | None:
    """The module's own `example_input_array`, if it has one."""
    example = module.example_input_array
    return None if example is None else Inputs.of(example)


def example_like(shape: tuple[int, ...]) -> Inputs:
    """Noise in place of an image: every run, also one that goes on from a checkpoint, gets the same."""
    return Inputs((torch.randn(shape, generator=torch.Generator().manual_seed(0)),), {})


def noise_like(call: Inputs) -> Inputs:
    """The same call with one sample, where its tensors agree on how many there are, and noise for images.

    Images are floating tensors of three dims or more; everything else, such as time steps or labels, stays
    what it was. Every run that calls its network in this way gets the same noise.

    Example:
        >>> noise_like(Inputs((torch.ones(4, 3, 8, 8), torch.tensor([7, 1, 2, 3])), {})).args[1]
        tensor([7])
    """
    generator = torch.Generator().manual_seed(0)
    lengths = {tensor.shape[0] for tensor in call.tensors if tensor.dim()}

    def smaller(tensor: Tensor) -> Tensor:
        """One sample of a tensor, where they are counted; noise of its shape for an image."""
        kept = tensor[:1] if tensor.dim() and len(lengths) == 1 else tensor
        noise = kept.is_floating_point() and kept.dim() > 2
        return torch.randn(kept.shape, generator=generator).to(kept.dtype) if noise else kept.clone()

    return call.map(smaller)


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
