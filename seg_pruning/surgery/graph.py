"""What leaves a network together, what stays, and why."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from seg_pruning.surgery.costs import Amount, CostModel, Held, Share, Table
from seg_pruning.surgery.cut import Cut, plan_cut
from seg_pruning.surgery.entries import Mint, Role
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.grouping import NO_GROUP, Grouping, Policy, group_units
from seg_pruning.surgery.labels import LabelArray
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trace import Trace


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
            channels as every other. One row where the channels are free.
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


SINGLE_CHANNEL = "it has a single channel"
"""Why a group, or each block of it, can lose no more."""


class ChannelGraph:
    """The groups of a network, and what any plan of them costs.

    Built by `trace`; holds no tensors of the network.
    """

    def __init__(self, trace: Trace, policy: Policy = Policy()) -> None:  # noqa: B008 - frozen
        self.trace = trace
        self.policy = policy
        self.grouping: Grouping = group_units(trace, policy)
        self._listed = _list_groups(trace, self.grouping)
        self.groups: tuple[ChannelGroup, ...] = tuple(group for _, group in self._listed)

    def __getitem__(self, name: str) -> ChannelGroup:
        """The group called `name`."""
        return self.by_name[name]

    @cached_property
    def by_name(self) -> Mapping[str, ChannelGroup]:
        """The groups by name."""
        return {group.name: group for group in self.groups}

    @cached_property
    def prunable(self) -> tuple[ChannelGroup, ...]:
        """The groups from which channels may leave."""
        return tuple(group for group in self.groups if group.prunable)

    @cached_property
    def idle(self) -> tuple[str, ...]:
        """Parameters that no op read in the traced pass."""
        return tuple(name for name in self.trace.parameters if name not in self.trace.ran)

    @cached_property
    def populations(self) -> frozenset[str]:
        """Groups over whose channels a norm, mean, extreme or softmax is taken: its population changes."""
        taken = [array for site in self.trace.sites.values() for array in site.over]
        numbers = {
            int(n) for array in taken for n in np.unique(self.grouping.group[self.grouping.root[array]])
        }
        return frozenset(group.name for number, group in self._listed if number in numbers)

    @cached_property
    def costs(self) -> CostModel:
        """Costs of the traced pass as functions of the kept channels of each of `prunable`."""
        position = {number: i for i, number in enumerate(self._prunable_numbers)}
        shares = _Shares(self.grouping, position)
        params = Counter({name: 0 for name in self.trace.parameters})
        by_tensor: dict[str, list[LabelArray]] = {name: [] for name in params}
        for mint in self.trace.mints:
            if mint.tensor in by_tensor:
                by_tensor[mint.tensor].append(mint.labels)
        held = [
            Amount(int(np.prod(self.trace.shapes[name])), shares.of(arrays))
            for name, arrays in by_tensor.items()
        ]
        work = [Amount(w.macs, shares.of(w.labels)) for w in self.trace.work]
        memory = [Held(Amount(b.bytes, shares.of(b.labels)), b.born, b.died) for b in self.trace.buffers]
        return CostModel([group.name for group in self.prunable], params=held, macs=work, held=memory)

    def lengths(self, dims: Sequence[tuple[str, int]]) -> Table:
        """The lengths of dims of tensors, each given by name and dim, as functions of the kept channels."""
        position = {number: i for i, number in enumerate(self._prunable_numbers)}
        shares = _Shares(self.grouping, position)
        found = []
        for name, dim in dims:
            labels = [m.labels for m in self.trace.mints if m.tensor == name and m.dims[-1] == dim]
            found.append(Amount(self.trace.shapes[name][dim], shares.of(labels)))
        return Table(found, len(self.prunable))

    @cached_property
    def _prunable_numbers(self) -> tuple[int, ...]:
        return tuple(number for number, group in self._listed if group.prunable)

    def units_of(self, name: str) -> LabelArray:
        """The labels that stand for the channels of a group, in their order."""
        number = next(number for number, group in self._listed if group.name == name)
        roots = np.flatnonzero(self.grouping.group == number)
        return roots[np.argsort(self.grouping.index[roots])]

    def keep(self, plan: Plan) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """For every label, whether `plan` keeps it.

        Raises:
            PruningError: the plan names a group that is not here, is pinned or has another size, or keeps
                unequal numbers of its blocks.
        """
        keep = np.ones(self.trace.count, dtype=bool)
        for name, kept in plan.kept.items():
            check_kept(self.by_name, name, kept, plan.sizes[name])
            roots = self.units_of(name)
            gone = np.ones(len(roots), dtype=bool)
            gone[list(kept)] = False
            keep[roots[gone]] = False
        whole: np.ndarray[tuple[int], np.dtype[np.bool_]] = keep[self.grouping.root]
        return whole

    def cut(self, plan: Plan) -> Cut:
        """What `plan` does to the network: keep masks, sizes, dropped modules; see `plan_cut`."""
        return plan_cut(self, plan)

    def report(self) -> str:
        """A table of all groups: size, layers, share of params and MACs, and why what is pinned is pinned."""
        from seg_pruning.surgery.report import report  # here: it needs rich, which nothing else of this does

        return report(self)


def check_kept(groups: Mapping[str, ChannelGroup], name: str, kept: Sequence[int], size: int) -> None:
    """Raises where `kept` is no legal choice from the group called `name`."""
    group = groups.get(name)
    if group is None:
        known = ", ".join(list(groups)[:10])
        raise PruningError(
            f"the network has no channel group {name!r}; its groups are "
            f"{known}{', ...' if len(groups) > 10 else ''}"
        )
    if size != group.size:
        raise PruningError(
            f"the plan is for {size} channels of {name!r}, which has {group.size}: "
            "trace the network and plan anew"
        )
    if len(kept) == group.size:
        return
    if not group.prunable:
        raise PruningError(
            f"group {name!r} cannot be pruned: {group.reason}; keep all its {group.size} channels"
        )
    counts = {len(set(row) & set(kept)) for row in group.rows}
    if len(counts) > 1 or 0 in counts:
        raise PruningError(
            f"the plan keeps {sorted(counts)} channels of the {len(group.rows)} blocks of {name!r}; "
            "each block has to keep the same number, at least 1"
        )


class _Shares:
    """Reads label arrays as shares of the prunable groups."""

    def __init__(self, grouping: Grouping, position: Mapping[int, int]) -> None:
        self.grouping = grouping
        self.position = position

    def of(self, arrays: Sequence[LabelArray]) -> tuple[Share, ...]:
        shares = [self._one(array.reshape(-1)) for array in arrays]
        return tuple(share for share in shares if share.times)

    def _one(self, labels: LabelArray) -> Share:
        numbers = self.grouping.group[self.grouping.root[labels]]
        found, counts = np.unique(numbers, return_counts=True)
        times = {
            self.position[n]: c / self.grouping.sizes[n]
            for n, c in zip(found.tolist(), counts.tolist(), strict=True)
            if n in self.position
        }
        fixed = sum(c for n, c in zip(found.tolist(), counts.tolist(), strict=True) if n not in self.position)
        return Share(int(fixed), times, labels.size)


def _list_groups(trace: Trace, grouping: Grouping) -> list[tuple[int, ChannelGroup]]:
    """The groups in the order of the first tensor that holds them; what no layer makes is left out."""
    members: dict[int, list[Member]] = {}
    for mint in trace.mints:
        for number, member in _members_of(trace, grouping, mint):
            members.setdefault(number, []).append(member)
    used: Counter[str] = Counter()
    listed = []
    for number, held in members.items():
        sides = {member.side for member in held}
        if grouping.reasons[number] == "never runs" or (
            grouping.reasons[number]
            and not (sides & {"out", "vector"} and any(member.parameter for member in held))
        ):
            continue
        maker = next((m for m in held if m.side == "out"), held[0]).tensor.rpartition(".")[0]
        used[maker] += 1
        name = maker if used[maker] == 1 else f"{maker}#{used[maker]}"
        listed.append((number, _group(name, held, grouping, number)))
    return listed


def _members_of(trace: Trace, grouping: Grouping, mint: Mint) -> list[tuple[int, Member]]:
    roots = grouping.root[mint.labels].squeeze()
    numbers, index = grouping.group[roots], grouping.index[roots]
    side: Role = trace.roles.get(
        int(mint.labels.flat[0]), "vector" if len(trace.shapes[mint.tensor]) == 1 else "out"
    )
    found = []
    for number in np.unique(numbers).tolist():
        if number != NO_GROUP and mint.tensor in trace.ran:
            units = torch.from_numpy(np.where(numbers == number, index, -1))
            member = Member(mint.tensor, mint.dims, units, side, mint.tensor in trace.parameter_set)
            found.append((number, member))
    return found


def _group(name: str, members: Sequence[Member], grouping: Grouping, number: int) -> ChannelGroup:
    size, rows = grouping.sizes[number], grouping.rows[number]
    reason = grouping.reasons[number] or (SINGLE_CHANNEL if rows.shape[1] == 1 else "")
    layers = tuple(dict.fromkeys(member.tensor.rpartition(".")[0] for member in members))
    block_rows = tuple(tuple(row) for row in rows.tolist())
    return ChannelGroup(name, size, layers, tuple(members), block_rows, not reason, reason)
