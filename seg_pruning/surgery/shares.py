"""Label arrays as shares of the groups that may lose channels: what costs are computed from."""

from collections.abc import Mapping, Sequence

import numpy as np

from seg_pruning.surgery.branches import BranchSet
from seg_pruning.surgery.costs import Amount, Share
from seg_pruning.surgery.grouping import Grouping
from seg_pruning.surgery.labels import LabelArray, span


class Shares:
    """Reads label arrays as shares of some groups, by their positions."""

    def __init__(
        self, grouping: Grouping, position: Mapping[int, int], branches: Sequence[BranchSet]
    ) -> None:
        self._grouping = grouping
        self._position = position
        self._set_of = {group: number for number, each in enumerate(branches) for group in each.rows}

    def amount(self, dense: int, arrays: Sequence[LabelArray]) -> Amount:
        """An amount that falls with what is kept of each of `arrays`."""
        shares = [self._one(array.reshape(-1)) for array in arrays]
        return Amount(dense, tuple(share for share in shares if share.times), self._repeated(arrays))

    def length(self, dense: int, arrays: Sequence[LabelArray], dim: int) -> Amount:
        """The length of `dim`, along which `arrays` vary: of a block where they tell blocks apart, too."""
        found = self.amount(dense, arrays)
        wide = [array for array in arrays if len(span(array)) > 1 and span(array)[-1] == dim]
        return Amount(dense, found.shares, tuple(number for array in wide for number in self._sets(array)))

    def _one(self, labels: LabelArray) -> Share:
        numbers = self._grouping.group[self._grouping.root[labels]]
        found, counts = np.unique(numbers, return_counts=True)
        times = {
            self._position[n]: c / self._grouping.sizes[n]
            for n, c in zip(found.tolist(), counts.tolist(), strict=True)
            if n in self._position
        }
        fixed = sum(
            c for n, c in zip(found.tolist(), counts.tolist(), strict=True) if n not in self._position
        )
        return Share(int(fixed), times, labels.size)

    def _repeated(self, arrays: Sequence[LabelArray]) -> tuple[int, ...]:
        """The sets whose branches lie along a dim that an array spans alone, and another one with others."""
        if not self._set_of:
            return ()
        alone = {
            (d, number) for a in arrays if len(span(a)) == 1 for d in span(a) for number in self._sets(a)
        }
        wide = [(array, number) for array in arrays if len(span(array)) > 1 for number in self._sets(array)]
        return tuple(number for array, number in wide if any((d, number) in alone for d in span(array)))

    def _sets(self, array: LabelArray) -> set[int]:
        groups = np.unique(self._grouping.group[self._grouping.root[array]]).tolist()
        return {self._set_of[group] for group in groups if group in self._set_of}
