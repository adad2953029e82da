"""Criteria that are a sum over a channel's elements, then a function of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from seg_pruning.pruning.criteria.base import Criterion, check_reads_weights
from seg_pruning.pruning.criteria.members import wide

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGroup


class Elementwise(Criterion):
    """Sum over the channel's elements of a value of each element, then a function of the sum.

    A subclass says the value of an element, and if need be the function. What it says of elements is computed
    once for each parameter, however many groups share it, which is what makes scores of every optimizer step
    cheap.
    """

    @abstractmethod
    def element(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        """The value of each element.

        Args:
            weight: A parameter, or a part of one, of any shape, float32 at least.
            gradient: Its gradient, of the same shape and dtype; `None` for criteria without gradients.

        Returns:
            A new tensor of the same shape and dtype.
        """

    def finish(self, total: Tensor) -> Tensor:
        """The scores of a group's channels from their sums, both of shape `(group.size,)`."""
        return total

    def __call__(
        self, group: ChannelGroup, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
    ) -> Tensor:
        """Scores of the channels of `group`.

        Raises:
            PruningError: The criterion reads outputs, not weights.
        """
        check_reads_weights(self)
        return self.finish(self.total(group, lambda name: self.value(name, weights, gradients)))

    @property
    def is_sum(self) -> bool:
        """Whether `finish` of plain sums or means is all there is to it: not if a subclass says otherwise."""
        kind = type(self)
        plain = kind.__call__ is Elementwise.__call__ and kind.total is Criterion.total
        return plain and self.reduce != "max"

    def value(
        self, name: str, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
    ) -> Tensor | None:
        """The value of each element of a parameter; `None` where it has no gradient, but needs one."""
        if not self.gradients:
            return self.element(wide(weights[name]), None)
        gradient = gradients.get(name)
        if gradient is None:
            return None
        weight = wide(weights[name])
        return self.element(weight, wide(gradient).to(weight.dtype))
