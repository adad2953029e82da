"""In which line of which block each channel stands, as far as a pass has told."""

import numpy as np

from seg_pruning.surgery.labels import LabelArray, LabelSet, span

_NONE = -1


class Rows:
    """For each label the line along which it leaves, row by row; grows with the labels.

    Attributes:
        laid_out: what activations showed along several dims at once, as heads are: rows that have a dim of
            their own are more than channels that leave.
    """

    def __init__(self) -> None:
        self.laid_out: list[LabelArray] = []
        self._row: LabelArray = np.full(1, _NONE, dtype=np.int64)
        self._stay: list[bool] = []

    def add(self, lines: LabelArray, *, stay: bool) -> None:
        """Each line of `lines`, shape `(lines, columns)`, is a row of its own.

        Where `stay` is set, something of each stays.
        """
        self._grow(int(lines.max()))
        stay = stay or self.stay(lines)
        self._row[lines] = len(self._stay) + np.arange(len(lines))[:, None]
        self._stay.extend([stay] * len(lines))

    def lay_out(self, labels: LabelSet) -> None:
        """Notes which arrays of an activation span several dims."""
        self.laid_out.extend(array for array in labels if len(span(array)) > 1)

    def share(self, a: LabelArray, b: LabelArray) -> None:
        """Tied channels, pairs of `a` and `b`, stand in the same rows."""
        if not self._stay:
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

    def stay(self, array: LabelArray) -> bool:
        """Whether each label of `array` stands in a row of which something stays."""
        rows = self.of(array)
        return rows is not None and all(self._stay[row] for row in np.unique(rows).tolist())

    def _grow(self, label: int) -> None:
        if label >= len(self._row):
            more = np.full(max(label + 1, 2 * len(self._row)) - len(self._row), _NONE, dtype=np.int64)
            self._row = np.concatenate([self._row, more])
