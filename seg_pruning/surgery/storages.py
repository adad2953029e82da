"""Which storages the ops of a pass make, and how long each of them lives."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from seg_pruning.surgery.entries import Buffer
from seg_pruning.surgery.labels import LabelSet


@dataclass(slots=True)
class _Living:
    """A storage that has not been released yet."""

    weak: StorageWeakRef
    buffer: int


class Storages:
    """Follows storages through one pass: only what an op makes counts, and a view is no storage of its own.

    A storage lives until it is really released, when nothing in Python refers to it any more, and not merely
    until an op reads it for the last time: what `forward` holds in a local variable takes memory.
    """

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self._living: dict[int, _Living] = {}

    def release(self, now: int) -> None:
        """Notes what was released before op number `now` began."""
        gone = [key for key, living in self._living.items() if living.weak.expired()]  # type: ignore[no-untyped-call]
        for key in gone:
            self.buffers[self._living.pop(key).buffer].died = now

    def made(self, now: int, read: Iterable[Tensor], outputs: Iterable[tuple[Tensor, LabelSet]]) -> None:
        """Notes the storages that op number `now` made.

        Args:
            now: its number.
            read: the tensors it was called with; an output in one of their storages is none of its own.
            outputs: what it gave, with their label arrays.
        """
        known = {key for tensor in read if (key := _key(tensor)) is not None} | set(self._living)
        for tensor, labels in outputs:
            key = _key(tensor)
            if key is None or key in known:
                continue
            known.add(key)
            storage = tensor.untyped_storage()
            weak = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
            self._living[key] = _Living(weak, len(self.buffers))
            self.buffers.append(Buffer(storage.nbytes(), labels, born=now))


def _key(tensor: Tensor) -> int | None:
    """What tells living storages apart; None for a tensor that has none (a sparse one)."""
    if tensor.layout != torch.strided:
        return None
    key: int = tensor.untyped_storage()._cdata
    return key
