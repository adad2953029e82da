"""Size of the weights.

Li et al. 2017, "Pruning Filters for Efficient ConvNets" (https://arxiv.org/abs/1608.08710), scores a filter
by the L1 norm of its weights; here the norm is over all that leaves with a channel, or, with `members="out"`,
over the filters, biases and norms that make it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from seg_pruning.pruning.criteria.base import Criterion

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGroup


class L1(Criterion):
    """Sum of absolute weights: sum over the channel's weights of |w|.

    Cost: one pass over the weights; no data.
    """

    gradients = False

    def __call__(
        self, group: ChannelGroup, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
    ) -> Tensor:
        """L1 norm of each channel."""
        return self.total(group, lambda name: weights[name].abs())


class L2(Criterion):
    """Euclidean norm: square root of the sum over the channel's weights of w^2.

    Cost: one pass over the weights; no data.
    """

    gradients = False

    def __call__(
        self, group: ChannelGroup, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
    ) -> Tensor:
        """L2 norm of each channel."""
        return self.total(group, lambda name: weights[name].float().square()).sqrt()
