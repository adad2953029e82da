"""In which line of which block each channel stands, as far as a pass has told."""

import numpy as np

from seg_pruning.surgery.labels import LabelArray

_NONE = -1


class Rows:
    """For each label the line along which it leaves, row by row; grows with the labels."""

    def __init__(self) -> None:
        self._row: LabelArray = np.full(1, _NONE, dtype=np.int64)
        self._count = 0

    def add(self, lines: LabelArray) -> None:
        """Each line of `lines`, shape `(lines, columns)`, is a row of its own."""
        self._grow(int(lines.max()))
        self._row[lines] = self._count + np.arange(len(lines))[:, None]
        self._count += len(lines)

    def share(self, a: LabelArray, b: LabelArray) -> None:
        """Tied channels, pairs of `a` and `b`, stand in the same rows."""
        if not self._count:
            return
        self._grow(int(max(a.max(), b.max())))
        for source, target in ((a, b), (b, a)):
            unknown = (self._row[target] == _NONE) & (self._row[source] != _NONE)
            self._row[target[unknown]] = self._row[source[unknown]]

    def of(self, array: LabelArray) -> LabelArray | None:
        """The row of each label of `array`; None where one has none."""
        self._grow(int(array.max(initial=0)))
        rows = self._row[array]
        return rows if rows.size and bool((rows != _NONE).all()) else None

    def _grow(self, label: int) -> None:
        if label >= len(self._row):
            more = np.full(max(label + 1, 2 * len(self._row)) - len(self._row), _NONE, dtype=np.int64)
            self._row = np.concatenate([self._row, more])
