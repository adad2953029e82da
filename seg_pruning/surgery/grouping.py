"""From ties, pins and blocks to groups of channels: pure arrays.

A *unit* is a connected component of labels: channels that can only leave together. A *group* is a set of
units that touch exactly the same places, so that any of them can be exchanged for any other: the channels of
one residual stream, the first half of a chunk. Groups whose counts are bound to each other by blocks are one
group with several rows.
"""

import math
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from seg_pruning.surgery.labels import FIXED, LabelArray, collapse, components, span
from seg_pruning.surgery.trace import Trace

NO_GROUP = -1

_Key: TypeAlias = tuple[int, int]
"""A block constraint: its number in the trace, and which kind of its units it binds."""


@dataclass(frozen=True)
class Policy:
    """What the trials added to the trace: blocks whose columns are tied or whose rows stay, pinned units."""

    tied_blocks: frozenset[int] = frozenset()
    refused_branches: frozenset[int] = frozenset()
    pins: tuple[tuple[LabelArray, str], ...] = ()


@dataclass(frozen=True)
class Grouping:
    """Units and groups of one trace.

    Attributes:
        root: the unit of each label, as its smallest label, shape `(labels,)`.
        group: the group of each root, `NO_GROUP` where it has none, shape `(labels,)`.
        index: the position of each root in its group, shape `(labels,)`.
        sizes: number of units of each group.
        rows: for each group the unit indices of each block, shape `(rows, columns)`; one row where it has no
            blocks.
        blocks: for each group the numbers of the block constraints that bind it.
        reasons: for each group why it is pinned; empty where it is free.
    """

    root: LabelArray
    group: LabelArray
    index: LabelArray
    sizes: tuple[int, ...]
    rows: tuple[LabelArray, ...]
    blocks: tuple[tuple[int, ...], ...]
    reasons: tuple[str, ...]


@dataclass
class _Pins:
    """Which roots are pinned, and the first reason that was given."""

    root: LabelArray
    reason_of: dict[int, str] = field(default_factory=dict)
    flags: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.flags = np.zeros(len(self.root), dtype=bool)

    def add(self, labels: LabelArray, reason: str) -> bool:
        """Pins the units of `labels`; True if any was free before."""
        roots = np.unique(self.root[labels])
        fresh = roots[~self.flags[roots]]
        self.flags[fresh] = True
        self.reason_of.update(dict.fromkeys(fresh.tolist(), reason))
        return bool(len(fresh))


def group_units(trace: Trace, policy: Policy) -> Grouping:
    """The groups of `trace` under `policy`."""
    tied = [_columns(trace.blocks[i].rows) for i in sorted(policy.tied_blocks)]
    root = components(trace.count, [*trace.ties, *(_broadcast(a, b) for a, b in tied)])
    pins = _collect_pins(trace, policy, root)
    loose = {
        (i, kind): rows
        for i, block in enumerate(trace.blocks)
        if i not in policy.tied_blocks
        for kind, rows in enumerate(_rows(root[block.rows], stay=block.stay))
        if len(rows) > 1
    }
    leaving = {
        block
        for number, entry in enumerate(trace.branches)
        if number not in policy.refused_branches
        for block in entry.blocks
    }
    while True:
        bound = {i: rows for i, rows in loose.items() if not pins.flags[rows].all()}
        if not _pin_irregular(trace, bound, pins, leaving):
            grouping, broken = _assemble(trace, root, pins, bound)
            if not broken:
                return grouping
            for labels, reason in broken:
                pins.add(labels, reason)


def _columns(rows: LabelArray) -> tuple[LabelArray, LabelArray]:
    lines = rows.reshape(-1, rows.shape[-1])
    return lines, lines[:1]


def _rows(units: LabelArray, *, stay: bool) -> list[LabelArray]:
    """The rows, each once, that have to keep equal numbers of `units`; one row where nothing binds them.

    Along the last dim, if the units differ along it: ties that came later may have made them one. Units that
    stand once in each row, twice and so on are rows of their own.
    """
    varying = collapse(units)
    dims = span(varying)
    if stay and units.ndim - 1 not in dims:
        varying, dims = units, (*dims, units.ndim - 1)  # whole lines, none of which may leave
    if len(dims) < 2:
        return [units.reshape(1, -1)]
    giving = units.ndim - 1 if units.ndim - 1 in dims else dims[-1]
    rows = np.moveaxis(varying, giving, -1).reshape(-1, varying.shape[giving])
    rows = rows[np.sort(np.unique(np.sort(rows, axis=1), axis=0, return_index=True)[1])]
    return _by_multiplicity(rows) if len(np.unique(rows)) != rows.size else [rows]


def _by_multiplicity(rows: LabelArray) -> list[LabelArray]:
    """The units of each row that stand in it once, twice, ...; all of them where the rows do not agree."""
    counted = [np.unique(row, return_counts=True) for row in rows]
    times = np.unique(np.concatenate([counts for _, counts in counted]))
    kinds = [[units[counts == n] for units, counts in counted] for n in times]
    alike = all(len({len(row) for row in kind}) == 1 for kind in kinds)
    return [np.stack(kind) for kind in kinds] if alike and len(rows) > 1 and rows.shape[1] > 1 else [rows]


def _broadcast(a: LabelArray, b: LabelArray) -> tuple[LabelArray, LabelArray]:
    x, y = np.broadcast_arrays(a, b)
    return x.reshape(-1), y.reshape(-1)


def _collect_pins(trace: Trace, policy: Policy, root: LabelArray) -> _Pins:
    pins = _Pins(root)
    for labels, reason in (*trace.pins, *policy.pins):
        pins.add(labels, reason)
    pins.add(np.array([FIXED]), "meets an index that never leaves")
    for mint in trace.mints:
        if mint.tensor not in trace.ran:
            pins.add(mint.labels.reshape(-1), "never runs")
    return pins


def _pin_irregular(trace: Trace, bound: dict[_Key, LabelArray], pins: _Pins, leaving: set[int]) -> bool:
    """Pins blocks that hold a pinned unit, a unit of two rows, or rows of one unit; True if any was free.

    Rows of one unit may still leave as a whole, those of the blocks `leaving`.
    """
    changed = False
    for i, rows in bound.items():
        why = trace.blocks[i[0]].reason
        if pins.flags[rows].any():
            held = pins.reason_of[int(rows[pins.flags[rows]][0])]
            changed |= pins.add(rows.reshape(-1), f"{why}, with channels that never leave ({held})")
        elif (rows.shape[1] == 1 and i[0] not in leaving) or len(np.unique(rows)) != rows.size:
            changed |= pins.add(rows.reshape(-1), f"{why}, and they cannot shrink alike")
    return changed


def _numbers(count: int) -> npt.NDArray[np.uint64]:
    """Fixed pseudo-random numbers: sums of them, modulo 2**64, tell sets of places apart."""
    return np.random.default_rng(20240412).integers(1, 2**63, size=max(count, 1), dtype=np.uint64)


def _signatures(
    trace: Trace, root: LabelArray, pins: _Pins, bound: dict[_Key, LabelArray]
) -> npt.NDArray[np.uint64]:
    """For each root, a number made of every place that it touches; 0 where no tensor holds it."""
    places = [root[mint.labels.reshape(-1)] for mint in trace.mints]
    sized = [np.unique(root[fit.labels]) for fit in trace.fits]  # a size must never become 0
    reasons = list(dict.fromkeys(pins.reason_of.values()))
    numbers = _numbers(len(places) + len(bound) + len(reasons) + len(sized))
    signature = np.zeros(len(root), dtype=np.uint64)
    held = np.zeros(len(root), dtype=bool)
    for roots, number in zip(places, numbers, strict=False):
        np.add.at(signature, roots, number)
        held[roots] = True
    for rows, number in zip(bound.values(), numbers[len(places) :], strict=False):
        signature[rows] += number
    for roots, number in zip(sized, numbers[len(numbers) - len(sized) :], strict=True):
        signature[roots] += number
    pinned = np.array(list(pins.reason_of), dtype=np.int64)
    number_of = dict(zip(reasons, numbers[len(places) + len(bound) :], strict=False))
    signature[pinned] += np.array([number_of[reason] for reason in pins.reason_of.values()], dtype=np.uint64)
    return np.where(held, signature, np.uint64(0))


def _assemble(
    trace: Trace, root: LabelArray, pins: _Pins, bound: dict[_Key, LabelArray]
) -> tuple[Grouping, list[tuple[LabelArray, str]]]:
    signature = _signatures(trace, root, pins, bound)
    held = np.flatnonzero((signature != 0) & (root == np.arange(len(root))))
    _, first, kind = np.unique(signature[held], return_index=True, return_inverse=True)
    kind = np.argsort(np.argsort(first))[kind.reshape(-1)]  # numbered in order of first appearance
    kind = _merge_bound(held, kind, bound)
    group = np.full(len(root), NO_GROUP, dtype=np.int64)
    group[held] = kind
    index = np.full(len(root), NO_GROUP, dtype=np.int64)
    sizes = np.bincount(kind, minlength=0)
    order = np.argsort(kind, kind="stable")
    index[held[order]] = np.arange(len(held)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    members = np.split(held[order], np.cumsum(sizes)[:-1]) if len(sizes) else []
    rows, blocks, broken = _rows_of(trace, root, members, group, index, bound)
    reasons = tuple(pins.reason_of.get(int(roots[0]), "") for roots in members)
    return Grouping(root, group, index, tuple(map(int, sizes)), rows, blocks, reasons), broken


def _merge_bound(held: LabelArray, kind: LabelArray, bound: dict[_Key, LabelArray]) -> LabelArray:
    """Gives one number to kinds that a block binds to each other, and numbers them without gaps."""
    count = int(kind.max()) + 1 if len(kind) else 0
    kind_of = dict(zip(held.tolist(), kind.tolist(), strict=True))
    pairs = []
    for rows in bound.values():
        kinds = np.unique([kind_of[int(r)] for r in np.unique(rows)])
        pairs.append((kinds, np.full_like(kinds, kinds[0])))
    merged = components(count, pairs)[kind] if count else kind
    return np.asarray(np.unique(merged, return_inverse=True)[1].reshape(-1), dtype=np.int64)


def _rows_of(
    trace: Trace,
    root: LabelArray,
    members: list[LabelArray],
    group: LabelArray,
    index: LabelArray,
    bound: dict[_Key, LabelArray],
) -> tuple[tuple[LabelArray, ...], tuple[tuple[int, ...], ...], list[tuple[LabelArray, str]]]:
    """The finest blocks of each group; groups whose blocks do not nest are given back as broken."""
    rows = [np.arange(len(roots))[None] for roots in members]
    blocks: list[tuple[int, ...]] = [() for _ in members]
    found: dict[int, list[LabelArray]] = {}
    for number, constraint in bound.items():
        at = int(group[constraint.flat[0]])
        blocks[at] = (*blocks[at], number[0])
        found.setdefault(at, []).append(index[constraint])
    for fit in trace.fits:  # an axis that is sized must not be emptied, however its rows are chosen
        units = np.unique(root[fit.labels])
        at = int(group[units[0]])
        if at in found and len(units) < len(members[at]) and (group[units] == at).all():
            found[at].append(index[units][None])
    broken = []
    for at, constraints in found.items():
        finest = _finest(constraints, len(members[at]))
        if finest is None:
            reason = trace.blocks[blocks[at][0]].reason
            broken.append((members[at], f"{reason}, and other blocks of it do not fit these"))
        else:
            rows[at] = finest
    return tuple(rows), tuple(blocks), broken


def _finest(constraints: list[LabelArray], size: int) -> LabelArray | None:
    """Rows of one length that every row of every constraint is made of; None where there are none.

    A row that no constraint splits is split in its own order.
    """
    width = math.gcd(*(rows.shape[1] for rows in constraints))
    row_of = np.full(size, -1, dtype=np.int64)
    count = 0
    for row in [row for rows in sorted(constraints, key=lambda rows: rows.shape[1]) for row in rows]:
        held, parts = row[row_of[row] >= 0], row[row_of[row] < 0]
        whole = np.unique(row_of[held], return_counts=True)[1]
        if (whole != width).any() or len(parts) % width:
            return None
        row_of[parts] = count + np.arange(len(parts)) // width
        count += len(parts) // width
    return np.argsort(row_of, kind="stable").reshape(count, width) if (row_of >= 0).all() else None
