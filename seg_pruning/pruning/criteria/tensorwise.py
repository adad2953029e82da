"""Criteria that score tensor by tensor, such as filters of a layer or scales of a norm, then reduce."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from seg_pruning.pruning.criteria.base import Criterion
from seg_pruning.pruning.criteria.members import Reduce, holds, reduced

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGroup, Member


class Tensorwise(Criterion):
    """A score from each of some tensors where the channels are made; `reduce` makes them one.

    A subclass says which tensors these are, refuses groups without any, and scores one of them.

    Args:
        reduce: See `Criterion`.
    """

    def __init__(self, *, reduce: Reduce = "sum") -> None:
        super().__init__(members="out", reduce=reduce)

    @abstractmethod
    def scored_members(self, group: ChannelGroup, weights: Mapping[str, Tensor]) -> Sequence[Member]:
        """The members of `group` that are scored, one at least.

        Raises:
            PruningError: There is none.
        """

    @abstractmethod
    def member_score(self, group: ChannelGroup, member: Member, weight: Tensor) -> Tensor:
        """The score that one tensor gives each channel, `(group.size,)`; zero for those it does not hold."""

    def __call__(
        self, group: ChannelGroup, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
    ) -> Tensor:
        """Scores of the channels of `group`.

        Raises:
            PruningError: The group has no tensor that is scored.
        """
        members = self.scored_members(group, weights)
        parts = [self.member_score(group, member, weights[member.tensor]) for member in members]
        return reduced(parts, [holds(m, group.size) for m in members], reduce=self.reduce).float()
