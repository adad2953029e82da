"""Chance: the control that every other criterion has to beat.

Mittal et al. 2018, "Recovering from Random Pruning" (https://arxiv.org/abs/1801.10447): which channel leaves
often matters less than how many do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from zlib import crc32

import torch
from torch import Tensor

from seg_pruning.pruning.criteria.base import Criterion

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGroup


class Random(Criterion):
    """Scores uniform in [0, 1), the same for the same seed, group name and size, on every machine and rank.

    Cost: none.
    """

    gradients = False

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def __call__(
        self, group: ChannelGroup, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
    ) -> Tensor:
        """Scores that look at nothing but the group's name and size."""
        generator = torch.Generator().manual_seed(crc32(f"{self.seed}/{group.name}/{group.size}".encode()))
        return torch.rand(group.size, generator=generator)
