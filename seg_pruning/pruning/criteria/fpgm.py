"""Distance from the other filters.

He et al. 2019, "Filter Pruning via Geometric Median for Deep Neural Networks Acceleration"
(https://arxiv.org/abs/1811.00250): a filter near the geometric median of its layer is one that the others can
stand in for, however large it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seg_pruning.pruning.criteria.base import Criterion
from seg_pruning.pruning.criteria.members import Reduce, filters, holds, reduced
from seg_pruning.surgery.errors import PruningError

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGroup


class FPGM(Criterion):
    """Geometric median: sum of the Euclidean distances of a filter to all others of its layer.

        score(u) = sum over channels v of |w_u - w_v|

    w_u is the filter of the layer that makes channel u, without bias and norm; where a channel comes of
    several filters of one layer, their weights laid end to end. Where several layers make the channels,
    `reduce` says what becomes of their scores.

    Cost: distances of all pairs of filters, on the CPU in float64; no data.

    Args:
        reduce: See `Criterion`.
    """

    def __init__(self, *, reduce: Reduce = "sum") -> None:
        super().__init__(members="out", reduce=reduce)

    def __call__(
        self, group: ChannelGroup, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
    ) -> Tensor:
        """Scores of the channels of `group`.

        Raises:
            PruningError: No layer makes the channels by filters.
        """
        parts, held = [], []
        for member in (m for m in self.counted(group) if m.side == "out" and weights[m.tensor].ndim > 1):
            channels, rows = filters(group, member, weights[member.tensor])
            parts.append(torch.zeros(group.size, dtype=rows.dtype))
            parts[-1][channels] = torch.cdist(rows, rows).sum(1)
            held.append(holds(member, group.size))
        if not parts:
            raise PruningError(
                f"no filters make the channels of {group.name!r}, so there are no distances between them: "
                "protect it, or choose another criterion, such as 'l2'"
            )
        return reduced(parts, held, reduce=self.reduce).float()
