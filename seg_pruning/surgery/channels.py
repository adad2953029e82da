"""Channels that leave together, as a reader of a graph sees them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from seg_pruning.surgery.entries import Role


@dataclass(frozen=True)
class Member:
    """One parameter or buffer some of whose elements belong to a group's channels.

    Attributes:
        tensor: its name, as in the state dict.
        dims: the dims along which membership varies.
        units: the channel of the group at each index of `dims`, int64; -1 where it is of another group.
        side: `out` for the filters that make a channel, `in` for the weights that read it, `vector` for
            biases, norms and buffers, `spatial` for the extent of a kernel, which is always pinned.
        parameter: False for a buffer.
    """

    tensor: str
    dims: tuple[int, ...]
    units: Tensor
    side: Role
    parameter: bool

    def sum(self, values: Tensor, size: int) -> Tensor:
        """Sums of the elements of each channel.

        Args:
            values: a tensor of the member's shape.
            size: number of channels of the group.

        Returns:
            Tensor of shape `(size,)`, of the dtype of `values`.
        """
        rest = tuple(d for d in range(values.ndim) if d not in self.dims)
        flat = (values.sum(rest) if rest else values).reshape(-1)
        units = self.units.to(flat.device).reshape(-1)
        mine = units >= 0
        return torch.zeros(size, dtype=flat.dtype, device=flat.device).index_add_(0, units[mine], flat[mine])


@dataclass(frozen=True)
class ChannelGroup:
    """Channels any of which can leave for any other: what a plan chooses from.

    Attributes:
        name: the layer that makes the channels; `#2`, `#3` where a layer makes several kinds.
        size: number of channels.
        layers: every layer that holds a part of them.
        members: their elements in parameters and buffers.
        rows: channel numbers of each block, shape `(blocks, size / blocks)`: each block keeps as many
            channels as every other, or leaves as a whole where `graph.branches` has it. One row where the
            channels are free.
        prunable: whether any may leave.
        reason: why not; empty when prunable.
    """

    name: str
    size: int
    layers: tuple[str, ...]
    members: tuple[Member, ...]
    rows: tuple[tuple[int, ...], ...]
    prunable: bool
    reason: str

    @property
    def step(self) -> int:
        """The fewest channels that can leave at once: one from each block."""
        return len(self.rows)


@dataclass(frozen=True)
class ChannelBranches:
    """Blocks that may leave as a whole, those of several groups together: the groups of a convolution.

    Attributes:
        rows: for each group, by name, which of its rows stands in each branch.
    """

    rows: Mapping[str, tuple[int, ...]]

    @property
    def size(self) -> int:
        """Number of branches."""
        return len(next(iter(self.rows.values())))
