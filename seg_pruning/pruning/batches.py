"""The data of a scoring pass, read the same everywhere."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seg_pruning.profiling.inference import device_of
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import Inputs, map_tensors


@dataclass(frozen=True)
class Batch:
    """One item of the data, where the network is.

    Attributes:
        inputs: What the network is called with.
        target: What the loss gets beside the output; `None` where there is none.
        first: The number of its first sample among all samples of the pass.
    """

    inputs: Inputs
    target: object
    first: int

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.inputs.batch

    @property
    def samples(self) -> Iterator[Batch]:
        """Each sample as a batch of one; tensors without a batch dim are the same in all."""
        for i in range(self.size):

            def one(tensor: Tensor, i: int = i) -> Tensor:
                return tensor[i : i + 1] if tensor.dim() and tensor.shape[0] == self.size else tensor

            yield Batch(self.inputs.map(one), map_tensors(self.target, one), self.first + i)


def read_batches(data: Iterable[object], model: nn.Module, *, paired: bool) -> Iterator[Batch]:
    """The items of `data`, on the device of `model`.

    Args:
        data: What forward takes, or pairs of that and a target.
        model: The network.
        paired: Whether the items must be pairs. Otherwise a list of two, and a tuple of two where forward
            requires one argument only or the first item holds all of them, is a pair whose target is ignored.

    Raises:
        PruningError: An item is no pair, though it must be.
    """
    several = _required(model) > 1
    first = 0
    for item in data:
        inputs, target = _pair(item) if paired or _is_pair(item, several=several) else (item, None)
        read = Inputs.of(inputs)  # type: ignore[arg-type]  # it says what is legal
        device = device_of(model, read)
        batch = Batch(read.to(device=device), _move(target, device), first)
        first += batch.size
        yield batch


def _required(model: nn.Module) -> int:
    """How many positional arguments forward cannot do without."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(model.forward).parameters.values()
    return sum(p.kind in positional and p.default is p.empty for p in parameters)


def _is_pair(item: object, *, several: bool) -> bool:
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        return False
    return isinstance(item, list) or isinstance(item[0], (tuple, dict)) or not several


def _move(target: object, device: torch.device) -> object:
    """The target where the network runs."""
    return map_tensors(target, lambda tensor: tensor.to(device))


def _pair(batch: object) -> tuple[object, object]:
    """The inputs and the target of a batch."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise PruningError(
            f"expected each item of `data` to be a pair of inputs and target, not {type(batch).__name__}: "
            "pair them, for example ((b['image'], b['mask']) for b in loader)"
        )
    return batch[0], batch[1]
