"""Where and how a network is to be fast."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import torch

from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import Inputs

Dtype: TypeAlias = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Target:
    """Under what a latency is meant; the device is that of the network.

    Attributes:
        threads: threads within one operation on the CPU.
        dtype: what the network computes in.
        batch: inputs at once.
        cache: folder of the measured tables; by default ``seg_pruning/latency`` in the user's cache.
    """

    threads: int = 1
    dtype: Dtype = "float32"
    batch: int = 1
    cache: str | None = None

    def __post_init__(self) -> None:
        for name in ("threads", "batch"):
            if type(value := getattr(self, name)) is not int or value < 1:
                raise PruningError(f"expected {name} to be a whole number of 1 or more, but got {value!r}")
        if self.dtype not in get_args(Dtype):
            raise PruningError(f"expected dtype to be one of {get_args(Dtype)}, but got {self.dtype!r}")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch has it."""
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    @property
    def folder(self) -> Path:
        """The folder of the tables."""
        if self.cache is not None:
            return Path(self.cache)
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(home) / "seg_pruning" / "latency"

    def inputs(self, example: Inputs) -> Inputs:
        """`example` in the batch and the dtype that are meant; inputs are repeated where there are too few.

        Example:
            >>> Target(batch=3).inputs(Inputs.of(torch.zeros(2, 3, 4, 4))).shapes
            ((3, 3, 4, 4),)
        """
        have = example.batch

        def resized(tensor: torch.Tensor) -> torch.Tensor:
            """A tensor with samples along its first dim in the batch that is meant, in its memory format."""
            if not tensor.dim() or tensor.shape[0] != have or have == self.batch:
                return tensor
            chosen = tensor[torch.arange(self.batch, device=tensor.device) % have]
            last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
            return chosen.contiguous(memory_format=torch.channels_last) if last else chosen

        return example.map(resized).to(dtype=self.torch_dtype)
