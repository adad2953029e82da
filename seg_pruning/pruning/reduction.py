"""Sums over the channels of all groups at once: planned once, then a product and a sum for each parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from seg_pruning.pruning.criteria.elementwise import Elementwise
from seg_pruning.pruning.criteria.members import by_tensor, holds, once
from seg_pruning.surgery.graph import ChannelGroup, Member


@dataclass(frozen=True)
class Overlap:
    """Members of one tensor that meet in elements of the same channel, such as row i and column i.

    Attributes:
        group: Whose channels.
        start: Where these begin among those of all groups.
        members: The members.
    """

    group: ChannelGroup
    start: int
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Reduction:
    """How elements of parameters add up to channels of groups.

    Attributes:
        spans: First and last channel of each group among those of all groups.
        marginals: For each parameter the dims along which it is not summed, one entry for each such sum.
        overlaps: For each parameter what needs more than that.
        source: Index into all these sums laid end to end.
        target: The channel to which each adds.
        divisor: What the sums of each channel are divided by; `None` where by nothing.
    """

    spans: Mapping[str, tuple[int, int]]
    marginals: Mapping[str, tuple[tuple[int, ...], ...]]
    overlaps: Mapping[str, tuple[Overlap, ...]]
    source: Tensor
    target: Tensor
    divisor: Tensor | None

    def totals(self, values: Callable[[str], Tensor | None], sizes: Mapping[str, torch.Size]) -> Tensor:
        """What the elements of each channel of each group come to.

        Args:
            values: Gives for a parameter's name a tensor of its shape, or `None` for zeros.
            sizes: The shape of each parameter.

        Returns:
            float32 of shape `(channels of all groups,)`.
        """
        device = self.source.device
        sums: list[Tensor] = []
        extra = torch.zeros(self._channels, device=device)
        for name, all_dims in self.marginals.items():
            found = values(name)
            if found is None:
                empty = sum(prod(sizes[name][dim] for dim in dims) for dims in all_dims)
                sums.append(torch.zeros(empty, device=device))
                continue
            sums += [marginal(found, dims).to(device, torch.float32) for dims in all_dims]
            for overlap in self.overlaps.get(name, ()):
                size = overlap.group.size
                part = torch.stack([m.sum(value, size) for m, value in once(overlap.members, found)]).sum(0)
                extra[overlap.start : overlap.start + size] += part.to(extra)
        if sums:
            extra.index_add_(0, self.target, torch.cat(sums)[self.source])
        return extra if self.divisor is None else extra / self.divisor

    @property
    def _channels(self) -> int:
        return max((end for _, end in self.spans.values()), default=0)


def plan_reduction(
    groups: Sequence[ChannelGroup],
    criterion: Elementwise,
    sizes: Mapping[str, torch.Size],
    device: torch.device,
) -> Reduction:
    """The sums that `criterion` needs of `groups`; `reduce="max"` has none.

    Args:
        groups: The groups.
        criterion: Says which members count, and whether sums or means are taken.
        sizes: The shape of each parameter.
        device: Where the sums are added up.
    """
    assert criterion.reduce != "max"
    spans: dict[str, tuple[int, int]] = {}
    marginals: dict[str, dict[tuple[int, ...], None]] = {}
    overlaps: dict[str, list[Overlap]] = {}
    links: list[tuple[str, tuple[int, ...], Tensor]] = []
    start = 0
    for group in groups:
        spans[group.name] = (start, start + group.size)
        for tensor, members in by_tensor(criterion.counted(group)).items():
            marginals.setdefault(tensor, {})
            if len(members) > 1:
                overlaps.setdefault(tensor, []).append(Overlap(group, start, tuple(members)))
                continue
            marginals[tensor][tuple(sorted(members[0].dims))] = None
            links.append((tensor, tuple(sorted(members[0].dims)), _ordered(members[0], start)))
        start += group.size
    source, target = _indices(links, marginals, sizes)
    divisor = _counts(groups, criterion).to(device) if criterion.reduce == "mean" else None
    return Reduction(
        spans=spans,
        marginals={name: tuple(dims) for name, dims in marginals.items()},
        overlaps={name: tuple(found) for name, found in overlaps.items()},
        source=source.to(device),
        target=target.to(device),
        divisor=divisor,
    )


def marginal(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Sum over all but `dims`, flattened.

    Where the dims that stay are neighbours in memory, as they are in all usual layers, the sum is a product
    with ones, which is several times as fast as a reduction over dims.

    Args:
        values: Any tensor.
        dims: The dims that stay, ascending.

    Example:
        >>> marginal(torch.ones(2, 3, 4), (1,))
        tensor([8., 8., 8.])
    """
    strides = values.stride()
    order = sorted(range(values.ndim), key=lambda dim: (-strides[dim], dim))
    first = order.index(dims[0])
    inner = values.permute(order)
    if tuple(order[first : first + len(dims)]) != dims or not inner.is_contiguous():
        rest = tuple(dim for dim in range(values.ndim) if dim not in dims)
        return (values.sum(rest) if rest else values).reshape(-1)
    before, after = prod(inner.shape[:first]), prod(inner.shape[first + len(dims) :])
    flat = inner.reshape(before, -1)
    flat = values.new_ones(before) @ flat if before > 1 else flat[0]
    return flat if after == 1 else flat.view(-1, after) @ values.new_ones(after)


def _ordered(member: Member, start: int) -> Tensor:
    """The channel at each index of the ascending dims of `member`, flattened; -1 where none."""
    order = sorted(range(len(member.dims)), key=member.dims.__getitem__)
    units = member.units.permute(order).reshape(-1).cpu()
    return torch.where(units >= 0, units + start, -1)


def _indices(
    links: Sequence[tuple[str, tuple[int, ...], Tensor]],
    marginals: Mapping[str, Mapping[tuple[int, ...], None]],
    sizes: Mapping[str, torch.Size],
) -> tuple[Tensor, Tensor]:
    """Which element of all sums laid end to end adds to which channel."""
    starts, position = {}, 0
    for name, all_dims in marginals.items():
        for dims in all_dims:
            starts[name, dims] = position
            position += prod(sizes[name][dim] for dim in dims)
    empty = torch.zeros(0, dtype=torch.int64)
    source, target = [empty], [empty]
    for name, dims, units in links:
        mine = (units >= 0).nonzero().squeeze(1)
        source.append(mine + starts[name, dims])
        target.append(units[mine])
    return torch.cat(source), torch.cat(target)


def _counts(groups: Sequence[ChannelGroup], criterion: Elementwise) -> Tensor:
    """In how many tensors each channel of each group has elements, 1 at least."""
    found = [torch.zeros(0)]
    for group in groups:
        tensors = by_tensor(criterion.counted(group)).values()
        held = [torch.stack([holds(m, group.size) for m in members]).any(0) for members in tensors]
        found.append(torch.stack(held).sum(0) if held else torch.zeros(group.size))
    return torch.cat(found).clamp_min(1).float()
