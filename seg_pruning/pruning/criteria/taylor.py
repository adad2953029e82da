"""First-order change of the loss, or of the network's output, when a channel leaves.

Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning" (https://arxiv.org/abs/1906.10771):
weights. Molchanov et al. 2017 (https://arxiv.org/abs/1611.06440): outputs of filters. Sapkota et al. 2023,
"Neural Network Pruning for Real-time Polyp Segmentation" (https://arxiv.org/abs/2306.13203): change of the
output of a segmentation network, by gradients normalised there. Sapkota and Bhattarai 2023,
"Importance Estimation with Random Gradient for Neural Network Pruning" (https://arxiv.org/abs/2310.20203):
without labels.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from seg_pruning.pruning.criteria.base import Members, OutputGradient, Reads, Source, check_choice
from seg_pruning.pruning.criteria.elementwise import Elementwise
from seg_pruning.pruning.criteria.members import Reduce
from seg_pruning.pruning.criteria.outputs import OutputCriterion
from seg_pruning.surgery.errors import PruningError

Of = Literal["activation", "weight"]
Form = Literal["signed", "abs", "squared"]


class Taylor(Elementwise, OutputCriterion):
    """First-order Taylor score of a channel.

    `of="weight"`: to first order the loss changes by -s where all weights of a channel become zero, with

        s = sum over the channel's weights of w * dL/dw

    and the score is the mean over observations (batches, or optimizer steps) of s^2 ("squared") or |s|
    ("abs"): square or absolute value are taken after the sum over the channel, so that contributions of
    opposite sign cancel, as they do in the loss. Frozen parameters have no gradient and add nothing.

    `of="activation"`: x is the filter's output after the BatchNorm or InstanceNorm that directly follows, if
    one does, and before the non-linearity. For each sample and channel

        z = sum over places of x * dL/dx

    and the score is |mean of z| ("signed"), mean of |z| ("abs") or mean of z^2 ("squared") over all samples
    seen. At a BatchNorm the sum of z over a batch is gamma * dL/dgamma + beta * dL/dbeta.

    `normalise`: the gradient at the network's output is scaled, sample by sample, to unit L2 norm over all
    its elements before it is propagated, so that samples that fit well count as much as others; batch size
    and constant factors of the loss cancel. BatchNorm runs in eval mode, which keeps samples apart. Of
    weights the gradients of a batch are then the sum over its samples. `gradient="random"` propagates
    standard normal noise in place of the loss's gradient, which needs no labels: L is then the output's
    projection on that noise.

    Cost: `of="weight"` with the gradient of the loss as it is: one product with the weights for each
        observation, and no pass where training gives the gradients. All else: a forward and a backward pass
        over the data; of activations with a copy of each layer's output and its gradient in memory.

    Args:
        of: "weight" or "activation".
        form: "squared", "abs", or, of activations, "signed".
        gradient: "loss" or "random".
        normalise: Whether each sample's gradient at the output has unit norm.
        members: See `Criterion`; of weights only.
        reduce: See `Criterion`; of weights it is applied to s.
        seed: Of the random gradient.

    Raises:
        PruningError: A value, or a combination of them, is not legal.
    """

    gradients = True

    def __init__(
        self,
        *,
        of: Of = "weight",
        form: Form = "squared",
        gradient: Source = "loss",
        normalise: bool = False,
        members: Members = "all",
        reduce: Reduce = "sum",
        seed: int = 0,
    ) -> None:
        super().__init__(members=members, reduce=reduce)
        check_choice(self, "of", of, get_args(Of))
        check_choice(self, "form", form, get_args(Form) if of == "activation" else ("abs", "squared"))
        check_choice(self, "gradient", gradient, get_args(Source))
        if of == "activation" and members != "all":
            raise PruningError(
                f"members={members!r} chooses among weights, and Taylor(of='activation') reads none: "
                "leave it out, or take of='weight'"
            )
        self.of, self.form = of, form
        self.reads: Reads = "outputs" if of == "activation" else "weights"
        self.output_gradient = OutputGradient(source=gradient, normalise=normalise, seed=seed)

    def element(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        """The product w * dL/dw."""
        assert gradient is not None
        return weight * gradient

    def finish(self, total: Tensor) -> Tensor:
        """The form of s."""
        return _formed(total, self.form)

    def measure(self, output: Tensor, gradient: Tensor | None) -> Tensor:
        """The form of z; the sign is kept for the mean where it is "signed"."""
        assert gradient is not None
        change = (output * gradient).sum(-1)
        return change if self.form == "signed" else _formed(change, self.form)

    def conclude(self, mean: Tensor) -> Tensor:
        """The size of the mean."""
        return mean.abs()


def _formed(change: Tensor, form: Form) -> Tensor:
    """Square or absolute value."""
    return change.square() if form == "squared" else change.abs()
