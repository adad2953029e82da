"""What a criterion is: scores for the channels of one group, low ones leave first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from seg_pruning.surgery.errors import PruningError

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGroup, Member

Members: TypeAlias = Literal["all", "out"]


class Criterion(ABC):
    """Says how much each channel of a group matters.

    A subclass states its formula, its paper and its cost, sets `gradients`, and answers a call. The call is
    pure: the same arguments give the same scores, and nothing is changed.

    Args:
        members: Which parameter elements of a channel count: "all" that leave with it, the weights that read
            it included, or only those "out" of which it comes: filters, biases, norms. Buffers never count.
    """

    gradients: ClassVar[bool]
    """Whether gradients are needed; without them a call gets an empty mapping."""

    def __init__(self, *, members: Members = "all") -> None:
        if members not in get_args(Members):
            raise PruningError(f"expected members to be 'all' or 'out', but got {members!r}")
        self.members = members

    @abstractmethod
    def __call__(
        self, group: ChannelGroup, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
    ) -> Tensor:
        """Scores of the channels of `group`, float32 of shape `(group.size,)`: low leaves first.

        Args:
            group: The channels and the tensors that hold them.
            weights: Parameters by name.
            gradients: Their gradients by name; one that is missing (a frozen parameter) stands for zero.
        """

    def counted(self, group: ChannelGroup) -> list[Member]:
        """The members of `group` that count."""
        return [m for m in group.members if m.parameter and (self.members == "all" or m.side != "in")]

    def total(self, group: ChannelGroup, values: Callable[[str], Tensor | None]) -> Tensor:
        """Sum over all elements of each channel, each element once.

        Args:
            group: The channels.
            values: Gives for a parameter's name a tensor of its shape, or `None` for zeros.

        Returns:
            float32 of shape `(group.size,)`; sums run in float32 at least.
        """
        parts = []
        for tensor, members in _by_tensor(self.counted(group)).items():
            found = values(tensor)
            if found is not None:
                found = found.detach().to(torch.promote_types(found.dtype, torch.float32))
                parts += [member.sum(value, group.size) for member, value in _once(members, found)]
        return torch.stack(parts).sum(0).float() if parts else torch.zeros(group.size)


def _by_tensor(members: list[Member]) -> dict[str, list[Member]]:
    """The members of each tensor, in order."""
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(member.tensor, []).append(member)
    return found


def _once(members: list[Member], values: Tensor) -> Iterator[tuple[Member, Tensor]]:
    """Each member of one tensor with its values, zero where an earlier one gave them to the same channel.

    In a convolution inside a residual stream row i and column i leave together, and meet in an element.
    """
    for position, member in enumerate(members):
        mine, fresh = _units(member, values), values
        for earlier in members[:position]:
            fresh = fresh.masked_fill(mine == _units(earlier, values), 0)
        yield member, fresh


def _units(member: Member, values: Tensor) -> Tensor:
    """The channel of each element, broadcastable to `values`; -1 where it has none in the group."""
    order = sorted(range(len(member.dims)), key=member.dims.__getitem__)
    shape = [size if dim in member.dims else 1 for dim, size in enumerate(values.shape)]
    return member.units.permute(order).reshape(shape).to(values.device)
