"""How strongly, or how often, a filter answers.

Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource Efficient Inference"
(https://arxiv.org/abs/1611.06440), for the mean; Hu et al. 2016, "Network Trimming"
(https://arxiv.org/abs/1607.03250), for the average percentage of zeros.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from seg_pruning.pruning.criteria.base import check_choice
from seg_pruning.pruning.criteria.members import Reduce
from seg_pruning.pruning.criteria.outputs import OutputCriterion

Statistic = Literal["mean", "apoz"]


class Activation(OutputCriterion):
    """Mean over samples and places of |x|, or of [x > 0].

    x is the filter's output after the norm that directly follows, before the non-linearity. "mean" is the
    mean of |x|. "apoz" is 1 - APoZ, the share of places that a ReLU does not set to zero: so low leaves
    first, as everywhere. It says nothing where another non-linearity follows.

    Cost: a forward pass over the data; no labels.

    Args:
        statistic: "mean" or "apoz".
        reduce: See `Criterion`.
    """

    gradients = False

    def __init__(self, *, statistic: Statistic = "mean", reduce: Reduce = "sum") -> None:
        super().__init__(members="out", reduce=reduce)
        check_choice(self, "statistic", statistic, get_args(Statistic))
        self.statistic = statistic

    def measure(self, output: Tensor, gradient: Tensor | None) -> Tensor:
        """Mean over places."""
        found = output.abs() if self.statistic == "mean" else (output > 0).to(output.dtype)
        return found.mean(-1)
