"""Blocks whose number Python passes: they keep equal widths, or leave as a whole."""

from collections.abc import Sequence

from seg_pruning.surgery.entries import Branches
from seg_pruning.surgery.expressions import Attribute, Expression
from seg_pruning.surgery.labels import LabelArray
from seg_pruning.surgery.ledger import Ledger


def branch(ledger: Ledger, lines: Sequence[LabelArray], size: Expression | None, reason: str) -> None:
    """Each line keeps as many channels as every other, or leaves with that line of each other of `lines`.

    Args:
        ledger: where it is noted.
        lines: arrays of shape `(branches, channels)`.
        size: how the number of branches came about; all stay where it was not just read from an attribute.
        reason: why they are bound.
    """
    first = len(ledger.blocks)
    for rows in lines:
        ledger.equal_rows(rows, reason)
    if isinstance(size, Attribute):
        ledger.branches.append(Branches(tuple(lines), tuple(range(first, len(ledger.blocks))), size))
