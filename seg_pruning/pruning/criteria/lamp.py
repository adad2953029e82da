"""Size of a channel against those that would outlive it.

Lee et al. 2021, "Layer-adaptive Sparsity for the Magnitude-based Pruning" (https://arxiv.org/abs/2010.07611),
for single weights; here for channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seg_pruning.pruning.criteria.elementwise import Elementwise


class LAMP(Elementwise):
    """Layer-adaptive magnitude: the share of a channel in the energy of all at least as large in its group.

        score(u) = |w_u|^2 / sum over channels v of the group with |w_v|^2 >= |w_u|^2 of |w_v|^2

    in [0, 1], with |w_u|^2 the sum of squares of the channel's weights. The largest channel of each group has
    score 1 (equal ones share it), so that a global ranking empties no group. A group of zeros scores zero.

    Cost: one pass over the weights and a sort; no data.
    """

    def element(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        """The square."""
        return weight.square()

    def finish(self, total: Tensor) -> Tensor:
        """The share of each channel."""
        energy, order = total.to("cpu", torch.float64).sort()  # not every accelerator has float64
        above = energy.flip(0).cumsum(0).flip(0)
        first = torch.searchsorted(energy, energy)  # equal channels count one another
        share = energy / above[first].clamp_min(torch.finfo(energy.dtype).tiny)
        return torch.empty_like(share).scatter_(0, order, share).to(total.device, torch.float32)
