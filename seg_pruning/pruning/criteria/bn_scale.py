"""Size of the scale of the norm that follows a filter.

Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming"
(https://arxiv.org/abs/1708.06519).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from seg_pruning.pruning.criteria.base import Criterion, check_scored
from seg_pruning.pruning.criteria.members import Reduce, holds, reduced

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGroup, Member


class BNScale(Criterion):
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

    def __init__(self, *, reduce: Reduce = "sum") -> None:
        super().__init__(members="out", reduce=reduce)

    def __call__(
        self, group: ChannelGroup, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
    ) -> Tensor:
        """Scores of the channels of `group`.

        Raises:
            PruningError: No norm with scale and shift holds the channels.
        """
        check_scored(self, [group])
        found = scales(group)
        parts = [m.sum(weights[m.tensor].detach().float().abs(), group.size) for m in found]
        held = [holds(m, group.size) for m in found]
        return reduced(parts, held, reduce=self.reduce)

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
