"""Criteria that look at what filters put out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from seg_pruning.pruning.criteria.base import Criterion, Reads, check_reads_weights

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGroup


class OutputCriterion(Criterion):
    """Scores from the outputs of the layers that make the channels, over a pass of samples.

    The output x of a filter is taken after the BatchNorm or InstanceNorm that directly follows, if one does,
    and before the non-linearity. `measure` sees it for one layer at a time; its answers are averaged over all
    samples, `conclude` makes them the layer's scores, and `reduce` makes one of those of several layers.

    A subclass sets `gradients` and answers `measure`.
    """

    reads: Reads = "outputs"

    @abstractmethod
    def measure(self, output: Tensor, gradient: Tensor | None) -> Tensor:
        """A number for each sample and channel.

        Args:
            output: What the layer puts out, float32 at least, `(N, C, positions)`: all places of all calls of
                the layer.
            gradient: Its gradient, of the same shape; `None` for criteria without gradients.

        Returns:
            Tensor of shape `(N, C)`.
        """

    def conclude(self, mean: Tensor) -> Tensor:
        """Scores of a layer from the mean over samples, both of shape `(C,)`."""
        return mean

    def __call__(
        self, group: ChannelGroup, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
    ) -> Tensor:
        """Refuses: weights are not enough.

        Raises:
            PruningError: Always.
        """
        check_reads_weights(self)
        raise AssertionError(f"{type(self).__name__} reads outputs")
