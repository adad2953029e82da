"""The most bytes of activations that live at once while a network runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from seg_pruning.profiling.inference import call_once
from seg_pruning.surgery.inputs import ExampleInputs, Inputs, flatten_tensors
from seg_pruning.surgery.storages import Storages


def peak_memory(model: nn.Module, example_inputs: ExampleInputs | Inputs) -> int:
    """Bytes of activations that live at once, at most, in one forward pass of `model` in eval mode.

    Counted are the storages that ops make, from the op that makes them until nothing refers to them any more.
    Inputs, parameters, buffers, what a kernel takes for itself, and rounding up by an allocator are not
    counted. The model, its modes and the random state are as before.

    Args:
        model: any module; it is run where its parameters are.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments; on any device.

    Raises:
        PruningError: `example_inputs` has none of these forms.

    Example:
        >>> import torch
        >>> peak_memory(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU()), torch.zeros(1, 3, 4, 4))
        1024
    """
    watch = _Watch()
    output = call_once(model, example_inputs, watch)
    watch.storages.release(watch.now)
    del output  # it lives to the end
    change: Counter[int] = Counter()
    for buffer in watch.storages.buffers:
        change[buffer.born] += buffer.bytes
        change[watch.now if buffer.died is None else buffer.died] -= buffer.bytes
    return max(accumulate(change[now] for now in sorted(change)), default=0)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the storages that ops make."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages = Storages()
        self.now = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.storages.release(self.now)
        out = func(*args, **(kwargs or {}))
        read, made = flatten_tensors((args, kwargs or {})), flatten_tensors(out)
        self.storages.made(self.now, read, ((tensor, ()) for tensor in made))
        self.now += 1
        return out
