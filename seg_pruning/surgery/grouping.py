"""From ties, pins and blocks to groups of channels: pure arrays.

A *unit* is a connected component of labels: channels that can only leave together. A *group* is a set of
units that touch exactly the same places, so that any of them can be exchanged for any other: the channels of
one residual stream, the first half of a chunk. Groups whose counts are bound to each other by blocks are one
group with several rows.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from seg_pruning.surgery.labels import FIXED, LabelArray, components
from seg_pruning.surgery.trace import Trace

NO_GROUP = -1


@dataclass(frozen=True)
class Policy:
    """What the trials added to the trace: blocks whose columns are tied, units that are pinned."""

    tied_blocks: frozenset[int] = frozenset()
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
    tied = [(trace.blocks[i].rows, trace.blocks[i].rows[:1]) for i in sorted(policy.tied_blocks)]
    root = components(trace.count, [*trace.ties, *(_broadcast(a, b) for a, b in tied)])
    pins = _collect_pins(trace, policy, root)
    loose = {i: root[b.rows] for i, b in enumerate(trace.blocks) if i not in policy.tied_blocks}
    while True:
        bound = {i: rows for i, rows in loose.items() if not pins.flags[rows].all()}
        bound = {
            i: rows for i, rows in bound.items() if (np.sort(rows, axis=1) != np.sort(rows[:1], axis=1)).any()
        }
        if not _pin_irregular(trace, bound, pins):
            grouping, broken = _assemble(trace, root, pins, bound)
            if not broken:
                return grouping
            for labels, reason in broken:
                pins.add(labels, reason)


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


def _pin_irregular(trace: Trace, bound: dict[int, LabelArray], pins: _Pins) -> bool:
    """Pins blocks that hold a pinned unit, a unit of two rows, or rows of one unit; True if any was free."""
    changed = False
    for i, rows in bound.items():
        why = trace.blocks[i].reason
        if pins.flags[rows].any():
            held = pins.reason_of[int(rows[pins.flags[rows]][0])]
            changed |= pins.add(rows.reshape(-1), f"{why}, with channels that never leave ({held})")
        elif rows.shape[1] == 1 or len(np.unique(rows)) != rows.size:
            changed |= pins.add(rows.reshape(-1), f"{why}, and they cannot shrink alike")
    return changed


def _numbers(count: int) -> npt.NDArray[np.uint64]:
    """Fixed pseudo-random numbers: sums of them, modulo 2**64, tell sets of places apart."""
    return np.random.default_rng(20240412).integers(1, 2**63, size=max(count, 1), dtype=np.uint64)


def _signatures(
    trace: Trace, root: LabelArray, pins: _Pins, bound: dict[int, LabelArray]
) -> npt.NDArray[np.uint64]:
    """For each root, a number made of every place that it touches; 0 where no tensor holds it."""
    places = [root[mint.labels.reshape(-1)] for mint in trace.mints]
    reasons = list(dict.fromkeys(pins.reason_of.values()))
    numbers = _numbers(len(places) + len(bound) + len(reasons))
    signature = np.zeros(len(root), dtype=np.uint64)
    held = np.zeros(len(root), dtype=bool)
    for roots, number in zip(places, numbers, strict=False):
        np.add.at(signature, roots, number)
        held[roots] = True
    for rows, number in zip(bound.values(), numbers[len(places) :], strict=False):
        signature[rows] += number
    pinned = np.array(list(pins.reason_of), dtype=np.int64)
    number_of = dict(zip(reasons, numbers[len(places) + len(bound) :], strict=False))
    signature[pinned] += np.array([number_of[reason] for reason in pins.reason_of.values()], dtype=np.uint64)
    return np.where(held, signature, np.uint64(0))


def _assemble(
    trace: Trace, root: LabelArray, pins: _Pins, bound: dict[int, LabelArray]
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
    rows, blocks, broken = _rows_of(trace, members, group, index, bound)
    reasons = tuple(pins.reason_of.get(int(roots[0]), "") for roots in members)
    return Grouping(root, group, index, tuple(map(int, sizes)), rows, blocks, reasons), broken


def _merge_bound(held: LabelArray, kind: LabelArray, bound: dict[int, LabelArray]) -> LabelArray:
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
    members: list[LabelArray],
    group: LabelArray,
    index: LabelArray,
    bound: dict[int, LabelArray],
) -> tuple[tuple[LabelArray, ...], tuple[tuple[int, ...], ...], list[tuple[LabelArray, str]]]:
    """The finest blocks of each group; groups whose blocks do not nest are given back as broken."""
    rows = [np.arange(len(roots))[None] for roots in members]
    blocks: list[tuple[int, ...]] = [() for _ in members]
    broken = []
    for number, constraint in bound.items():
        at = int(group[constraint.flat[0]])
        mine = index[constraint]
        blocks[at] = (*blocks[at], number)
        finest = _finer(rows[at], mine, len(members[at]))
        if finest is None:
            broken.append(
                (members[at], f"{trace.blocks[number].reason}, and other blocks of it do not fit these")
            )
        else:
            rows[at] = finest
    return tuple(rows), tuple(blocks), broken


def _finer(a: LabelArray, b: LabelArray, size: int) -> LabelArray | None:
    """The finer of two partitions of `size` units into equal rows; None where neither refines the other."""
    if a.size != size or b.size != size:
        return None
    coarse, fine = (a, b) if len(a) <= len(b) else (b, a)
    row_of = np.empty(size, dtype=np.int64)
    row_of[coarse] = np.arange(len(coarse))[:, None]
    return fine if (row_of[fine] == row_of[fine[:, :1]]).all() else None
