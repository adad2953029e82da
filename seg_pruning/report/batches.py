"""Batches of somebody's data module: the first ones, held in memory and given again."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import lightning as L
from torch import Tensor

from seg_pruning.pruning.sensitivity import tensor_bytes
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import map_tensors

Loaders = Any
"""What `val_dataloader` may give: one iterable of batches, or a list or dict of them."""


class _Held:
    """Batches in memory. A plain list would be taken for a list of loaders."""

    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def first_batches(loader: Iterable[Any], limit: int | None) -> Iterable[Any]:
    """The first `limit` batches, in memory; the loader itself if there is no limit."""
    return loader if limit is None else _Held(list(islice(loader, limit)))


def each_loader(loaders: Loaders, change: Callable[[Iterable[Any]], Iterable[Any]]) -> Loaders:
    """Each loader changed, in the container that it came in."""
    if isinstance(loaders, Mapping):
        return {name: change(loader) for name, loader in loaders.items()}
    return [change(loader) for loader in loaders] if isinstance(loaders, list | tuple) else change(loaders)


def flat_loaders(loaders: Loaders) -> list[Iterable[Any]]:
    """The loaders one after the other."""
    if isinstance(loaders, Mapping):
        return list(loaders.values())
    return list(loaders) if isinstance(loaders, list | tuple) else [loaders]


@contextmanager
def serving(datamodule: L.LightningDataModule, batches: Loaders) -> Iterator[None]:
    """Within, the data module gives these batches for validation; its other hooks go on working."""
    vars(datamodule)["val_dataloader"] = lambda: batches
    try:
        yield
    finally:
        del vars(datamodule)["val_dataloader"]


def batches_digest(batches: Iterable[Any]) -> str:
    """A short name of the tensors of some batches."""
    digest = hashlib.sha256()

    def add(tensor: Tensor) -> Tensor:
        digest.update(tensor_bytes(tensor))
        return tensor

    for batch in batches:
        map_tensors(batch, add)
    return digest.hexdigest()[:16]


def image_of(batch: Any) -> Tensor:
    """What the module's forward takes of a batch: ``image`` of a mapping, the first entry of a sequence.

    Raises:
        PruningError: there is none.
    """
    found = batch["image"] if isinstance(batch, Mapping) and "image" in batch else batch
    found = found[0] if isinstance(found, list | tuple) else found
    if not isinstance(found, Tensor):
        raise PruningError(
            f"no image can be recognised in a batch of type {type(batch).__name__}: let batches be "
            "mappings with an 'image' or start with it, or choose recalibrate=0 and a criterion of weights"
        )
    return found
