"""Which widths each group can have: floors, ceilings, multiples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from seg_pruning.pruning.heads import feeding_outputs
from seg_pruning.pruning.options import Bounds, Selection
from seg_pruning.pruning.protection import matching, protected
from seg_pruning.surgery.errors import PruningError

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGraph, ChannelGroup

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Widths:
    """The widths that one group can have: from `least` to `most`, multiples of `quantum`, or whole.

    Attributes:
        width: channels of the whole group.
        blocks: channels that leave in one step, one from each block.
        least: channels that always stay.
        most: channels that may stay.
        quantum: what widths are multiples of.
    """

    width: int
    blocks: int
    least: int
    most: int
    quantum: int

    @classmethod
    def of(cls, group: ChannelGroup, *, least: float, most: float, round_to: int) -> Widths:
        """The widths of `group` that are legal between `least` and `most` channels.

        Raises:
            PruningError: there is none.
        """
        quantum = math.lcm(group.step, round_to)
        columns = (
            max(1, math.ceil(round(least / group.step, 6))) if least < group.size else len(group.rows[0])
        )
        found = cls(group.size, group.step, min(group.size, columns * group.step), group.size, quantum)
        if most >= group.size:
            return found
        found = replace(found, most=math.floor(round(most / quantum, 6)) * quantum)
        if found.most < (lowest := found.legal(found.least)):
            raise PruningError(
                f"group {group.name!r} of {group.size} channels keeps at least {lowest} by its floor, "
                f"protection or round_to={round_to}, and at most {most:g} by its ceiling: "
                f"raise the ceiling to {lowest}, or lower what is in its way"
            )
        return found

    @property
    def steps(self) -> int:
        """How many steps may be taken."""
        return (self.width - self.least) // self.blocks

    @property
    def forced(self) -> int:
        """How many steps the ceiling takes by itself."""
        return (self.width - self.most) // self.blocks

    def legal(self, wanted: int) -> int:
        """`wanted` channels, rounded up to a legal width."""
        return min(self.width, math.ceil(wanted / self.quantum) * self.quantum)


@dataclass(frozen=True)
class Branching:
    """How many blocks of some groups can stay: multiples of `quantum`.

    Attributes:
        groups: positions of the groups.
        size: blocks that each of them has.
        least: blocks with which every group keeps its floor, however many columns it loses.
        fewest: blocks with which it does where it loses none.
        quantum: what numbers of blocks are multiples of.
        floors: channels that each group keeps in any case.
    """

    groups: tuple[int, ...]
    size: int
    least: int
    fewest: int
    quantum: int
    floors: tuple[float, ...]

    @classmethod
    def of(
        cls, groups: Mapping[int, Widths], floors: Sequence[float], *, size: int, round_to: int
    ) -> Branching:
        """The numbers of blocks that `groups`, by their positions, can have.

        Blocks stay where widths could not be multiples of `round_to` then.
        """
        quantum = math.gcd(size, round_to)
        if any(each.width % each.quantum for each in groups.values()):
            return cls(tuple(groups), size, size, size, quantum, tuple(floors))

        def blocks(columns: Iterable[int]) -> int:
            wanted = [min(size, floor / n) for floor, n in zip(floors, columns, strict=True)]
            return max(1, math.ceil(round(max(wanted), 6)))

        least = blocks(each.least // size for each in groups.values())
        fewest = blocks(each.width // size for each in groups.values())
        return cls(tuple(groups), size, least, fewest, quantum, tuple(floors))

    def leaving(self, *, apart: bool) -> int:
        """How many blocks may leave: `apart` from columns, or as long as those do not."""
        return self.size - (self.least if apart else self.fewest)


class AllWidths:
    """The widths of all groups side by side, and behind them the blocks of each set, to be read fast."""

    def __init__(self, widths: Sequence[Widths], branchings: Sequence[Branching] = ()) -> None:
        self.each = tuple(widths)
        self.branchings = tuple(branchings)

    @cached_property
    def steps(self) -> Ints:
        """How many steps each group may take, and how many blocks of each set may leave, all together."""
        blocks = [b.size - b.least for b in self.branchings]
        return np.array([*(w.steps for w in self.each), *blocks], dtype=np.int64)

    @cached_property
    def shrinking(self) -> Ints:
        """For each group how many steps it may take, and blocks lose: nothing leaves it where that is 0."""
        steps = self.steps[: len(self.each)].copy()
        for branching in self.branchings:
            steps[list(branching.groups)] += branching.size - branching.fewest
        return steps

    @cached_property
    def forced(self) -> Ints:
        """How many steps the ceiling of each group takes by itself; it takes no blocks."""
        return np.array([*(w.forced for w in self.each), *(0 for _ in self.branchings)], dtype=np.int64)

    @cached_property
    def _columns(self) -> tuple[Ints, Ints, Ints, Ints]:
        rows = [(w.width, w.blocks, w.quantum, w.most) for w in self.each]
        width, blocks, quantum, most = np.array(rows, dtype=np.int64).reshape(len(rows), 4).T
        return width, blocks, quantum, most

    @cached_property
    def _blocks(self) -> tuple[Ints, Ints]:
        rows = [(b.size, b.quantum) for b in self.branchings]
        size, quantum = np.array(rows, dtype=np.int64).reshape(len(rows), 2).T
        return size, quantum

    def kept(self, steps: Ints) -> Floats:
        """Channels, and blocks, that are kept after `steps` steps of each; rounded up to what is legal."""
        width, blocks, quantum, most = self._columns
        wanted = width - steps[: len(width)] * blocks
        rounded = np.minimum(width, -(-wanted // quantum) * quantum)
        kept: Ints = np.where(wanted <= most, np.minimum(rounded, most), rounded)
        all_blocks, multiple = self._blocks
        staying = np.minimum(all_blocks, -(-(all_blocks - steps[len(width) :]) // multiple) * multiple)
        for branching, now in zip(self.branchings, staying, strict=True):
            at = list(branching.groups)
            kept[at] = kept[at] // branching.size * now
        return np.concatenate([kept, staying]).astype(np.float64)


def widths_of(
    graph: ChannelGraph, selection: Selection, dense: Mapping[str, int], *, guarded: bool
) -> AllWidths:
    """The widths that each prunable group can have, with `head_floor` if `guarded`.

    Raises:
        PruningError: a name is unknown, or a ceiling is below a floor.
    """
    ceilings = _named(graph, selection.ceiling, dense, option="ceiling", choose=min)
    floors = _floors(graph, selection, dense, ceilings if guarded else None)
    widths = [
        Widths.of(
            group,
            least=floors[group.name],
            most=ceilings.get(group.name, math.inf),
            round_to=selection.multiple,
        )
        for group in graph.prunable
    ]
    return AllWidths(widths, _branchings(graph, selection, floors, widths))


def _branchings(
    graph: ChannelGraph, selection: Selection, floors: Mapping[str, float], widths: Sequence[Widths]
) -> list[Branching]:
    """The blocks that each set of branches can have; local scope takes the same share of each block."""
    position = {group.name: i for i, group in enumerate(graph.prunable)}
    found = []
    for branches in graph.branches:
        groups = {position[name]: widths[position[name]] for name in branches.rows}
        least = [math.inf if selection.scope == "local" else floors[name] for name in branches.rows]
        found.append(Branching.of(groups, least, size=branches.size, round_to=selection.multiple))
    return found


def _floors(
    graph: ChannelGraph,
    selection: Selection,
    dense: Mapping[str, int],
    ceilings: Mapping[str, float] | None,
) -> dict[str, float]:
    """The channels that each prunable group keeps at least; with `head_floor`, below these `ceilings`."""
    heads = feeding_outputs(graph) if ceilings is not None and selection.scope == "global" else frozenset()
    floors: dict[str, float] = {}
    for group in graph.prunable:
        width = dense.get(group.name, group.size)
        floors[group.name] = selection.default_floor * width
        if group.name in heads:
            quantum = math.lcm(group.step, selection.multiple)
            most = (ceilings or {}).get(group.name, math.inf)
            most = most if most >= group.size else math.floor(round(most / quantum, 6)) * quantum
            floors[group.name] = max(floors[group.name], min(selection.head_floor * width, most))
    named = selection.floor if isinstance(selection.floor, Mapping) else {}
    whole = dict.fromkeys(protected(graph, selection.protect), math.inf)
    return floors | _named(graph, named, dense, option="floor", choose=max) | whole


def _named(
    graph: ChannelGraph,
    bounds: Bounds,
    dense: Mapping[str, int],
    *,
    option: str,
    choose: Callable[[float, float], float],
) -> dict[str, float]:
    """The channels that patterns say of each group, a fraction being one of its dense width."""
    found: dict[str, float] = {}
    for pattern, bound in bounds.items():
        for name in matching(graph, (pattern,), option=option):
            width = bound * dense.get(name, graph[name].size) if bound <= 1 else bound
            found[name] = choose(found.get(name, width), width)
    return found
