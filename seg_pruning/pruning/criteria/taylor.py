"""First-order change of the loss when a channel leaves.

Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning" (https://arxiv.org/abs/1906.10771).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

from torch import Tensor

from seg_pruning.pruning.criteria.base import Criterion, Members
from seg_pruning.surgery.errors import PruningError

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGroup

Of = Literal["weight"]
Form = Literal["squared", "abs"]


class Taylor(Criterion):
    """First-order Taylor score of a channel from weights and gradients.

    To first order the loss changes by -s where all weights of a channel become zero, with

        s = sum over the channel's weights of w * dL/dw

    and the score is s^2 ("squared") or |s| ("abs"): square or absolute value are taken after the sum over the
    channel, so that contributions of opposite sign cancel, as they do in the loss. Over several observations
    (batches, or optimizer steps) the scores are averaged, not s.

    Frozen parameters have no gradient and add nothing: a channel of mostly frozen weights scores low.

    Cost: one product with the weights for each observation; no extra pass where training gives the gradients.

    Args:
        of: "weight": weights and their gradients.
        form: What is made of s: "squared" or "abs".
        members: See `Criterion`.
    """

    gradients = True

    def __init__(self, *, of: Of = "weight", form: Form = "squared", members: Members = "all") -> None:
        super().__init__(members=members)
        for argument, value, legal in (("of", of, get_args(Of)), ("form", form, get_args(Form))):
            if value not in legal:
                raise PruningError(f"expected Taylor's {argument} to be one of {legal}, but got {value!r}")
        self.of = of
        self.form = form

    def __call__(
        self, group: ChannelGroup, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
    ) -> Tensor:
        """Score of each channel for one set of gradients."""

        def product(name: str) -> Tensor | None:
            gradient = gradients.get(name)
            return None if gradient is None else weights[name].float() * gradient.float()

        change = self.total(group, product)
        return change.square() if self.form == "squared" else change.abs()
