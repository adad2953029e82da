"""Scales that attention takes from the width of its queries: what a cut has to make up for."""

import math
from dataclasses import dataclass, field

import numpy as np

from seg_pruning.surgery.expressions import Expression
from seg_pruning.surgery.labels import LabelArray, LabelSet


@dataclass(frozen=True)
class Root:
    """A scale that Python computes at each call.

    Attributes:
        queries: label arrays of what it scales, or of what was multiplied for it; the width last.
        size: of which the root is taken.
        power: the scale is the size to this power.
    """

    queries: LabelSet
    size: Expression
    power: float


@dataclass
class Scales:
    """What one pass tells of these scales.

    Attributes:
        follows: numbers of the attentions whose queries may lose width; the cut makes up for it.
        scaled: for each fused attention that takes its scale from a width, the label arrays of its queries,
            the width last.
        sums: labels to which a parameter was added, and its own, pair by pair and in order: one scale is for
            both.
        roots: scales that Python computes.
        floats: sizes that Python made floats of, for which no scale was found yet, and how they came about.
        ended: what the last product summed over, the dim of the sum last.
    """

    follows: frozenset[int] = frozenset()
    scaled: list[LabelSet] = field(default_factory=list)
    sums: list[tuple[LabelArray, LabelArray]] = field(default_factory=list)
    roots: list[Root] = field(default_factory=list)
    floats: list[tuple[int, Expression]] = field(default_factory=list)
    ended: LabelSet = ()

    def note(self, queries: LabelSet) -> bool:
        """Notes one more attention; whether its queries may lose width."""
        self.scaled.append(queries)
        return self.narrows_last

    @property
    def narrows_last(self) -> bool:
        """Whether the queries of the last attention may lose width."""
        return len(self.scaled) - 1 in self.follows

    def note_sum(self, made: LabelArray | None, bias: LabelArray | None) -> None:
        """Notes that the parameter of `bias` was added to the channels `made`."""
        if made is not None and bias is not None:
            x, y = np.broadcast_arrays(made, bias)
            self.sums.append((x.reshape(-1), y.reshape(-1)))

    def take_root(self, factor: float) -> tuple[Expression, float] | None:
        """The size of which Python made `factor`, and to which power; None if there is none.

        >>> scales = Scales(floats=[(16, 16)])
        >>> scales.take_root(0.25), scales.take_root(0.25)
        ((16, -0.5), None)
        """
        for at, (size, expression) in enumerate(self.floats):
            for power in (-0.5, 0.5):
                if math.isclose(factor, size**power):
                    del self.floats[at]
                    return expression, power
        return None
