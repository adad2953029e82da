"""Bytes that live at once, counted by a mode of its own: nothing here is shared with the code under test."""

import weakref
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seg_pruning.surgery.inputs import ExampleInputs, Inputs


class Living(TorchDispatchMode):
    """Adds the bytes of a storage when an op returns it, and takes them off when it is destroyed."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {t.untyped_storage().data_ptr() for t in tensors((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for tensor in tensors(out):
            storage = tensor.untyped_storage()
            where = storage.data_ptr()
            if where and where not in given and where not in self.bytes:
                self.bytes[where] = storage.nbytes()
                self.now += storage.nbytes()
                weakref.finalize(storage, self.freed, where)
        self.peak = max(self.peak, self.now)
        return out

    def freed(self, where: int) -> None:
        self.now -= self.bytes.pop(where)


def tensors(value: object) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


def peak(model: nn.Module, example: ExampleInputs) -> int:
    """The most bytes that lived at once in a pass of `model` in eval mode."""
    with torch.no_grad(), Living() as living:
        output = Inputs.of(example).call(model.eval())
    del output
    return living.peak
