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

from seg_pruning.pruning.criteria.members import filters
from seg_pruning.pruning.criteria.tensorwise import Tensorwise
from seg_pruning.surgery.errors import PruningError

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGroup, Member


class FPGM(Tensorwise):
    """Geometric median: sum of the Euclidean distances of a filter to all others of its layer.

        score(u) = sum over channels v of |w_u - w_v|

    w_u is the filter of the layer that makes channel u, without bias and norm; where a channel comes of
    several filters of one layer, their weights laid end to end. Where several layers make the channels,
    `reduce` says what becomes of their scores.

    Cost: distances of all pairs of filters, on the CPU in float64; no data.

    Args:
        reduce: See `Criterion`.
    """

    def scored_members(self, group: ChannelGroup, weights: Mapping[str, Tensor]) -> list[Member]:
        """The filters of the layers that make the channels.

        Raises:
            PruningError: No layer makes the channels by filters.
        """
        found = [m for m in self.counted(group) if m.side == "out" and weights[m.tensor].ndim > 1]
        if not found:
            raise PruningError(
                f"no filters make the channels of {group.name!r}, so there are no distances between them: "
                "protect it, or choose another criterion, such as 'l2'"
            )
        return found

    def member_score(self, group: ChannelGroup, member: Member, weight: Tensor) -> Tensor:
        """Sums of distances within one layer, float64."""
        channels, rows = filters(group, member, weight)
        return rows.new_zeros(group.size).index_copy_(0, channels, torch.cdist(rows, rows).sum(1))
