"""Which kept channels are a legal choice: equal numbers of each block, none where blocks may leave."""

from collections.abc import Mapping, Sequence

from seg_pruning.surgery.channels import ChannelBranches, ChannelGroup
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.plan import Plan


def check_kept(
    groups: Mapping[str, ChannelGroup], name: str, kept: Sequence[int], size: int, *, whole_rows: bool
) -> None:
    """Raises where `kept` is no legal choice from the group called `name`.

    Args:
        groups: all groups by name.
        name: of one that may not be among them.
        kept: its kept channels.
        size: channels that it had when this was decided.
        whole_rows: whether blocks of it may leave as a whole.
    """
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
    if len(counts - {0}) > 1 or (0 in counts and not whole_rows):
        remedy = "the same number, or none" if whole_rows else "the same number, at least 1"
        raise PruningError(
            f"the plan keeps {sorted(counts)} channels of the {len(group.rows)} blocks of {name!r}; "
            f"each block has to keep {remedy}"
        )


def kept_branches(
    groups: Mapping[str, ChannelGroup], branches: ChannelBranches, plan: Plan
) -> tuple[int, ...]:
    """The branches that `plan` keeps.

    Raises:
        PruningError: the groups of `branches` lose different ones.
    """
    kept = {name: _kept(groups[name], rows, plan) for name, rows in branches.rows.items()}
    if len(set(kept.values())) > 1:
        gone = {name: sorted(set(range(branches.size)) - set(stay)) for name, stay in kept.items()}
        raise PruningError(
            f"the plan removes other blocks of {' than of '.join(gone)}: "
            f"{' and '.join(str(each[:10]) for each in gone.values())}; they have to leave together"
        )
    return next(iter(kept.values()))


def _kept(group: ChannelGroup, rows: Sequence[int], plan: Plan) -> tuple[int, ...]:
    if group.name not in plan.kept:
        return tuple(range(len(rows)))
    kept = set(plan.kept[group.name])
    return tuple(i for i, row in enumerate(rows) if kept & set(group.rows[row]))
