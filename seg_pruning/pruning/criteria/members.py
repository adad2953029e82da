"""What the elements of a parameter add up to for each channel of a group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import Tensor

from seg_pruning.surgery.errors import PruningError

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGroup, Member

Reduce: TypeAlias = Literal["sum", "mean", "max"]


def reduced(parts: Sequence[Tensor], held: Sequence[Tensor], *, reduce: Reduce) -> Tensor:
    """One number for each channel from those of the tensors or layers that hold a part of it.

    Args:
        parts: Tensors of shape `(size,)`, zero where a channel is not held.
        held: Booleans of shape `(size,)` for each part: whether it holds the channel at all.
        reduce: Their sum; their mean over those that hold the channel; or the one of largest magnitude,
            with its sign.

    Example:
        >>> parts, held = [torch.tensor([1.0, 2.0]), torch.tensor([-3.0, 0.0])], [torch.ones(2) > 0] * 2
        >>> [reduced(parts, held, reduce=how).tolist() for how in ("sum", "mean", "max")]
        [[-2.0, 2.0], [-1.0, 1.0], [-3.0, 2.0]]
    """
    values = torch.stack(list(parts))
    if reduce == "max":
        return values.gather(0, values.abs().argmax(0, keepdim=True)).squeeze(0)
    if reduce == "sum":
        return values.sum(0)
    return values.sum(0) / torch.stack(list(held)).to(values).sum(0).clamp_min(1)


def holds(member: Member, size: int) -> Tensor:
    """Whether each channel has an element in `member`: booleans of shape `(size,)`, on the CPU."""
    found = torch.zeros(size, dtype=torch.bool)
    found[member.units[member.units >= 0].cpu()] = True
    return found


def wide(tensor: Tensor) -> Tensor:
    """Half precision as float32, wider types as they are; without the history of gradients."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def by_tensor(members: Sequence[Member]) -> dict[str, list[Member]]:
    """The members of each tensor, in order."""
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(member.tensor, []).append(member)
    return found


def once(members: Sequence[Member], values: Tensor) -> Iterator[tuple[Member, Tensor]]:
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


def channel_positions(units: Tensor) -> tuple[Tensor, Tensor]:
    """Which places belong to which channel.

    Args:
        units: The channel at each place, of any shape, -1 where none.

    Returns:
        The channels that have a place, int64 `(P,)`, ascending; and their places in the flattened `units`,
        int64 `(P, k)`.

    Raises:
        PruningError: One channel has more places than another.

    Example:
        >>> channels, places = channel_positions(torch.tensor([1, 0, -1, 1, 0]))
        >>> channels.tolist(), places.tolist()
        ([0, 1], [[1, 4], [0, 3]])
    """
    flat = units.reshape(-1).cpu()
    order = torch.argsort(flat, stable=True)
    order = order[flat[order] >= 0]
    channels, counts = torch.unique_consecutive(flat[order], return_counts=True)
    if len(counts) and counts.min() != counts.max():
        raise PruningError(
            f"its channels hold between {int(counts.min())} and {int(counts.max())} filters each, "
            "which no score of filters compares: choose a criterion of weights such as 'l2'"
        )
    return channels, order.reshape(len(channels), -1)


def filters(group: ChannelGroup, member: Member, values: Tensor) -> tuple[Tensor, Tensor]:
    """The elements of each channel in one tensor, as rows.

    Args:
        group: The channels.
        member: Where they are in the tensor.
        values: The tensor.

    Returns:
        The channels that are there, int64 `(P,)`, and float64 rows of shape `(P, elements of one channel)`.
    """
    rest = [dim for dim in range(values.ndim) if dim not in member.dims]
    places = values.detach().permute(*member.dims, *rest).reshape(member.units.numel(), -1)
    try:
        channels, chosen = channel_positions(member.units)
    except PruningError as error:
        raise PruningError(f"group {group.name!r}, {member.tensor}: {error}") from error
    rows = places.to("cpu", torch.float64)[chosen]
    return channels, rows.reshape(len(channels), -1)
