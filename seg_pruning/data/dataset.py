"""Decoded samples as a torch data set, and the order in which an epoch visits them."""

from collections.abc import Iterator
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from seg_pruning.data.samples import Arrays
from seg_pruning.data.transforms import Transform, normalise


class Item(TypedDict):
    """One sample: image float32 `(3, H, W)`, normalised; mask int64 `(H, W)`, class ids; its name."""

    image: Tensor
    mask: Tensor
    name: str


class Draw(NamedTuple):
    """A sample to visit, by its index, and the seed of what is random about this visit."""

    sample: int
    seed: int


class SegmentationDataset(Dataset[Item]):
    """Samples in memory, some of which are transformed anew at each visit.

    Args:
        arrays: The decoded samples.
        transform: What changes the sample of a `Draw`; a sample asked for by its plain index stays as it is.
    """

    def __init__(self, arrays: Arrays, transform: Transform | None = None) -> None:
        self.arrays = arrays
        self.transform = transform

    def __len__(self) -> int:
        return len(self.arrays.names)

    def __getitem__(self, key: int | Draw) -> Item:
        """The sample of an index or a `Draw`."""
        index = key.sample if isinstance(key, Draw) else key
        image, mask = self.arrays.images[index].numpy(), self.arrays.masks[index].numpy()
        if isinstance(key, Draw) and self.transform is not None:
            image, mask = self.transform(image, mask, key.seed)
        ids = torch.from_numpy(np.ascontiguousarray(mask)).long()
        return {"image": normalise(image), "mask": ids, "name": self.arrays.names[index]}


class SeededSampler(Sampler[Draw]):
    """Each epoch another order and other seeds, which follow from the seed and the number of the epoch alone.

    Lightning tells the epoch by `set_epoch`; in a plain loop each pass counts as one.

    Args:
        size: How many samples there are.
        seed: The run's seed.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Draw]:
        """The draws of one epoch."""
        random = np.random.default_rng((self.seed, self.epoch))
        self.epoch += 1
        order, seeds = random.permutation(self.size), random.integers(2**32, size=self.size)
        return (Draw(int(index), int(seed)) for index, seed in zip(order, seeds, strict=True))

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next, counted from 0."""
        self.epoch = epoch
