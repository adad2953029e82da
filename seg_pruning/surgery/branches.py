"""Blocks that may leave as a whole: which groups of channels lose which rows together. Pure.

Offered is only what can be proved from the trace: the rows are seen by nothing but the sizes that count them.
To everything else their channels are channels like others, of which any may leave.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from seg_pruning.surgery.entries import Branches, Fit
from seg_pruning.surgery.expressions import Attribute, leaves
from seg_pruning.surgery.grouping import NO_GROUP, Grouping
from seg_pruning.surgery.labels import LabelArray
from seg_pruning.surgery.trace import Trace

_Side = tuple[int, LabelArray]
"""A group, and which of its rows stands in each line."""


@dataclass(frozen=True)
class BranchSet:
    """Rows of some groups that leave together.

    Attributes:
        rows: for each group its row in each branch, shape `(branches,)`.
        entries: numbers of the entries of the trace that say so.
    """

    rows: Mapping[int, LabelArray]
    entries: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of branches."""
        return len(next(iter(self.rows.values())))


def branch_sets(trace: Trace, grouping: Grouping, refused: frozenset[int]) -> tuple[BranchSet, ...]:
    """The sets of branches from which some may leave, without the entries that are `refused`."""
    elsewhere = {leaf for fit in trace.fits for _, size in fit.sizes for leaf in leaves(size)}
    entries = {}
    for number, entry in enumerate(trace.branches):
        sides = [_side(grouping, lines) for lines in entry.lines]
        if number not in refused and all(sides) and entry.size not in elsewhere:
            entries[number] = [side for side in sides if side is not None]
    found = [_aligned(entries, numbers) for numbers in _connected(entries)]
    sets = [each for each in found if each is not None and _explained(trace, grouping, each)]
    seen = _seen_by_parts(trace, grouping) if sets else frozenset()
    alone = [each for each in sets if not seen & each.rows.keys()]
    counting = Counter(size for each in alone for size in _counted_by(trace, each))
    return tuple(each for each in alone if all(counting[size] == 1 for size in _counted_by(trace, each)))


def _counted_by(trace: Trace, found: BranchSet) -> set[Attribute]:
    """The attributes that hold the number of branches: two sets that share one could not differ."""
    return {trace.branches[number].size for number in found.entries}


def fits_of(trace: Trace, sets: tuple[BranchSet, ...]) -> tuple[Fit, ...]:
    """The sizes that count the branches which are kept."""
    entries: Iterator[Branches] = (trace.branches[number] for each in sets for number in each.entries)
    return tuple(Fit(lines, ((0, entry.size),), 1) for entry in entries for lines in entry.lines)


def _side(grouping: Grouping, lines: LabelArray) -> _Side | None:
    """The group whose rows `lines` are, all of them and nothing else; None if there is none."""
    units = grouping.root[lines]
    group = int(grouping.group[units.flat[0]])
    if group == NO_GROUP or grouping.reasons[group] or (grouping.group[units] != group).any():
        return None
    rows = grouping.rows[group]
    if rows.shape != units.shape or len(np.unique(units)) != grouping.sizes[group]:
        return None
    row_of = np.empty(grouping.sizes[group], dtype=np.int64)
    row_of[rows] = np.arange(len(rows))[:, None]
    found = row_of[grouping.index[units]]
    return (group, found[:, 0]) if (found == found[:, :1]).all() else None


def _connected(entries: Mapping[int, list[_Side]]) -> list[list[int]]:
    """The entries that share groups, directly or through others."""
    left, found = list(entries), []
    while left:
        inside, groups = [left.pop(0)], set[int]()
        for number in inside:
            groups |= {group for group, _ in entries[number]}
            more = [n for n in left if groups & {group for group, _ in entries[n]}]
            left = [n for n in left if n not in more]
            inside.extend(more)
        found.append(inside)
    return found


def _aligned(entries: Mapping[int, list[_Side]], numbers: list[int]) -> BranchSet | None:
    """The branches of entries that share groups; None where they order them in different ways."""
    rows = dict(entries[numbers[0]][:1])
    for number in numbers:  # each shares a group with one before it
        group, lines = next((group, lines) for group, lines in entries[number] if group in rows)
        if len(lines) != len(rows[group]):
            return None
        order = np.argsort(lines)[rows[group]]  # the line of each branch
        for other, its_lines in entries[number]:
            if (rows.setdefault(other, its_lines[order]) != its_lines[order]).any():
                return None
    return BranchSet(dict(sorted(rows.items())), tuple(sorted(numbers)))


def _explained(trace: Trace, grouping: Grouping, found: BranchSet) -> bool:
    """Whether no other block binds the groups: rows that leave would break it."""
    explained = {block for number in found.entries for block in trace.branches[number].blocks}
    return all(explained >= set(grouping.blocks[group]) for group in found.rows)


def _seen_by_parts(trace: Trace, grouping: Grouping) -> frozenset[int]:
    """The groups of which something holds a part, which whole rows could empty, or shows rows as a dim."""
    arrays = [mint.labels for mint in trace.mints]
    arrays += [fit.labels for fit in trace.fits]
    arrays += [array for work in trace.work for array in work.labels]
    arrays += [array for buffer in trace.buffers for array in buffer.labels]
    arrays += [a for site in trace.sites.values() for labels in (*site.inputs, *site.outputs) for a in labels]
    parts: set[int] = set()
    for array in arrays:
        units = np.unique(grouping.root[array])
        groups, counts = np.unique(grouping.group[units], return_counts=True)
        pairs = zip(groups.tolist(), counts.tolist(), strict=True)
        parts |= {group for group, count in pairs if group != NO_GROUP and count < grouping.sizes[group]}
    laid_out = [np.unique(grouping.group[grouping.root[array]]).tolist() for array in trace.laid_out]
    return frozenset(parts.union(*laid_out))
