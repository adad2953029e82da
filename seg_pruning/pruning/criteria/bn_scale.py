"""Size of the scale of the norm that follows a filter.

Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming"
(https://arxiv.org/abs/1708.06519).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from seg_pruning.pruning.criteria.base import check_scored
from seg_pruning.pruning.criteria.members import wide
from seg_pruning.pruning.criteria.tensorwise import Tensorwise

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGroup, Member


class BNScale(Tensorwise):
    """Network Slimming: |gamma| of the norms whose channels leave with the filter.

    Trained with an L1 penalty on the scales, which drives those that are not needed to zero. A norm is a
    module with a `weight` and a `bias` of one number for each channel and nothing else that makes channels:
    BatchNorm, GroupNorm, InstanceNorm, LayerNorm. Where a channel passes several, `reduce` says what becomes
    of their scales.

    A group without one is an error, not a guess: sizes of filters and scales of norms have no common unit.

    Cost: none; no data.

    Args:
        reduce: See `Criterion`.
    """

    def scored_members(self, group: ChannelGroup, weights: Mapping[str, Tensor]) -> list[Member]:
        """The scales of the norms.

        Raises:
            PruningError: No norm with scale and shift holds the channels.
        """
        check_scored(self, [group])
        return scales(group)

    def member_score(self, group: ChannelGroup, member: Member, weight: Tensor) -> Tensor:
        """|gamma|."""
        return member.sum(wide(weight).abs(), group.size)

    def unscored(self, group: ChannelGroup) -> str:
        """Why there is no score: no norm holds the channels."""
        return "" if scales(group) else "no norm with scale and shift holds their channels"


def scales(group: ChannelGroup) -> list[Member]:
    """The scales of the norms that hold the channels of `group`; for the penalty of training too."""
    vectors = {member.tensor for member in group.members if member.parameter and member.side == "vector"}
    return [
        member
        for member in group.members
        if member.tensor in vectors
        and member.tensor.rpartition(".")[2] == "weight"
        and f"{member.tensor.removesuffix('weight')}bias" in vectors
    ]
