"""Second-order change of the loss when a channel leaves.

LeCun et al. 1989, "Optimal Brain Damage" (https://proceedings.neurips.cc/paper/1989/hash/6c9882bbac1c7093bd25041881277658-Abstract.html):
near a minimum the first order vanishes and removing w_i raises the loss by 1/2 h_ii w_i^2. The diagonal of
the Hessian is taken for that of the empirical Fisher information, the mean of the squared gradient, as in
Theis et al. 2018, "Faster gaze prediction with dense networks and Fisher pruning"
(https://arxiv.org/abs/1801.05787).
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from seg_pruning.pruning.criteria.base import Members, OutputGradient, check_choice
from seg_pruning.pruning.criteria.elementwise import Elementwise
from seg_pruning.pruning.criteria.members import Reduce

Per = Literal["batch", "sample"]


class Hessian(Elementwise):
    """Optimal Brain Damage with the diagonal of the empirical Fisher information.

        score = mean over observations of 1/2 * sum over the channel's weights of (w * dL/dw)^2

    Squares are taken of each weight, so nothing cancels. With `per="batch"` an observation is a batch (or an
    optimizer step) and dL/dw the gradient of its mean loss: free while training, but smaller than the Fisher
    information by the averaging within the batch, the same for all channels where samples are alike. With
    `per="sample"` an observation is one sample: the Fisher information itself, in a pass of its own.

    Cost: one product with the weights for each observation; a backward pass for each sample if
        `per="sample"`.

    Args:
        per: What an observation is.
        members: See `Criterion`.
        reduce: See `Criterion`.
    """

    gradients = True

    def __init__(self, *, per: Per = "batch", members: Members = "all", reduce: Reduce = "sum") -> None:
        super().__init__(members=members, reduce=reduce)
        check_choice(self, "per", per, get_args(Per))
        self.per = per
        self.output_gradient = OutputGradient(per_sample=per == "sample")

    def element(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        """(w * dL/dw)^2."""
        assert gradient is not None
        return (weight * gradient).square_()

    def finish(self, total: Tensor) -> Tensor:
        """Half of it."""
        return total / 2
