"""Size of the weights.

Li et al. 2017, "Pruning Filters for Efficient ConvNets" (https://arxiv.org/abs/1608.08710), scores a filter
by the L1 norm of its weights; here the norm is over all that leaves with a channel, or, with `members="out"`,
over the filters, biases and norms that make it.
"""

from __future__ import annotations

from torch import Tensor

from seg_pruning.pruning.criteria.elementwise import Elementwise


class L1(Elementwise):
    """Sum of absolute weights: sum over the channel's weights of |w|.

    Cost: one pass over the weights; no data.
    """

    def element(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        """|w|."""
        return weight.abs()


class L2(Elementwise):
    """Euclidean norm: square root of the sum over the channel's weights of w^2.

    With `reduce="mean"` or `"max"` the sums of squares of the tensors are reduced, then the root is taken.

    Cost: one pass over the weights; no data.
    """

    def element(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        """The square."""
        return weight.square()

    def finish(self, total: Tensor) -> Tensor:
        """The root."""
        return total.sqrt()
