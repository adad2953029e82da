"""What leaves a network together, what stays, and why."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch

from seg_pruning.surgery.branches import branch_sets, fits_of
from seg_pruning.surgery.channels import ChannelBranches, ChannelGroup, Member
from seg_pruning.surgery.costs import CostModel, Held, Table, Vector
from seg_pruning.surgery.cut import Cut, plan_cut
from seg_pruning.surgery.entries import Fit, Mint, Role
from seg_pruning.surgery.grouping import NO_GROUP, Grouping, Policy, group_units
from seg_pruning.surgery.labels import LabelArray
from seg_pruning.surgery.legal import check_kept, kept_branches
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.shares import Shares
from seg_pruning.surgery.trace import Trace

__all__ = ("SINGLE_CHANNEL", "ChannelBranches", "ChannelGraph", "ChannelGroup", "Member")

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
        self._branch_sets = branch_sets(trace, self.grouping, policy.refused_branches)
        leaving = {number for each in self._branch_sets for number in each.rows}
        self._listed = _list_groups(trace, self.grouping, leaving)
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
        shares = self._shares
        params = Counter({name: 0 for name in self.trace.parameters})
        by_tensor: dict[str, list[LabelArray]] = {name: [] for name in params}
        for mint in self.trace.mints:
            if mint.tensor in by_tensor:
                by_tensor[mint.tensor].append(mint.labels)
        return CostModel(
            [group.name for group in self.prunable],
            params=[shares.amount(int(np.prod(self.trace.shapes[n])), a) for n, a in by_tensor.items()],
            macs=[shares.amount(work.macs, work.labels) for work in self.trace.work],
            held=[Held(shares.amount(b.bytes, b.labels), b.born, b.died) for b in self.trace.buffers],
            branches=[each.size for each in self.branches],
        )

    def lengths(self, dims: Sequence[tuple[str, int]]) -> Table:
        """The lengths of dims of tensors, each given by name and dim, as functions of the kept channels."""
        found = []
        for name, dim in dims:
            labels = [m.labels for m in self.trace.mints if m.tensor == name and m.dims[-1] == dim]
            found.append(self._shares.length(self.trace.shapes[name][dim], labels, dim))
        return Table(found, len(self.prunable), [each.size for each in self.branches])

    @cached_property
    def _shares(self) -> Shares:
        position = {number: i for i, number in enumerate(self._prunable_numbers)}
        return Shares(self.grouping, position, self._branch_sets)

    @cached_property
    def branches(self) -> tuple[ChannelBranches, ...]:
        """The blocks that may leave as a whole."""
        names = {number: group.name for number, group in self._listed}
        return tuple(
            ChannelBranches({names[number]: tuple(rows.tolist()) for number, rows in each.rows.items()})
            for each in self._branch_sets
        )

    @cached_property
    def branch_fits(self) -> tuple[Fit, ...]:
        """The sizes that count the blocks which may leave."""
        return fits_of(self.trace, self._branch_sets)

    def branch_entries(self, name: str) -> frozenset[int]:
        """Numbers of the entries of the trace by which blocks of the group called `name` may leave."""
        at = {number for number, group in self._listed if group.name == name}
        return frozenset(n for each in self._branch_sets if at & each.rows.keys() for n in each.entries)

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
                unequal numbers of its blocks, or others of two groups that lose whole blocks together.
        """
        keep = np.ones(self.trace.count, dtype=bool)
        branched = {name for each in self.branches for name in each.rows}
        for name, kept in plan.kept.items():
            check_kept(self.by_name, name, kept, plan.sizes[name], whole_rows=name in branched)
            roots = self.units_of(name)
            gone = np.ones(len(roots), dtype=bool)
            gone[list(kept)] = False
            keep[roots[gone]] = False
        for each in self.branches:
            kept_branches(self.by_name, each, plan)
        whole: np.ndarray[tuple[int], np.dtype[np.bool_]] = keep[self.grouping.root]
        return whole

    @cached_property
    def whole(self) -> Vector:
        """Widths of a plan that keeps everything, as `widths` gives them."""
        return self.widths(Plan({}, {}))

    def widths(self, plan: Plan) -> Vector:
        """How many channels of each of `prunable` a plan keeps, and behind them how many of `branches`."""
        kept = [len(plan.kept.get(group.name, range(group.size))) for group in self.prunable]
        branches = [len(kept_branches(self.by_name, each, plan)) for each in self.branches]
        return np.array([*kept, *branches], dtype=np.float64)

    def without_branch(self, number: int) -> Vector:
        """Widths when one branch of a set leaves, and nothing else."""
        kept = self.whole.copy()
        kept[len(self.prunable) + number] -= 1
        for at, group in enumerate(self.prunable):
            if group.name in self.branches[number].rows:
                kept[at] -= len(group.rows[0])
        return kept

    def cut(self, plan: Plan) -> Cut:
        """What `plan` does to the network: keep masks, sizes, dropped modules; see `plan_cut`."""
        return plan_cut(self, plan)

    def report(self) -> str:
        """A table of all groups: size, layers, share of params and MACs, and why what is pinned is pinned."""
        from seg_pruning.surgery.report import report  # here: it needs rich, which nothing else of this does

        return report(self)


def _list_groups(trace: Trace, grouping: Grouping, leaving: set[int]) -> list[tuple[int, ChannelGroup]]:
    """The groups in the order of the first tensor that holds them; what no layer makes is left out.

    Of those of the numbers `leaving` whole blocks may leave.
    """
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
        single = grouping.rows[number].shape[1] == 1 and number not in leaving
        reason = grouping.reasons[number] or (SINGLE_CHANNEL if single else "")
        listed.append((number, _group(name, held, grouping.rows[number], reason)))
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


def _group(name: str, members: Sequence[Member], rows: LabelArray, reason: str) -> ChannelGroup:
    layers = tuple(dict.fromkeys(member.tensor.rpartition(".")[0] for member in members))
    block_rows = tuple(tuple(row) for row in rows.tolist())
    return ChannelGroup(name, rows.size, layers, tuple(members), block_rows, not reason, reason)
