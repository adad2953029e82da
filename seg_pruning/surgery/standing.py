"""Blocks that lose channels but never leave as a whole, where they meet labels of whole blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from seg_pruning.surgery.labels import LabelArray, LabelSet, Shape, span

if TYPE_CHECKING:
    from seg_pruning.surgery.ledger import Ledger

Operand = tuple[LabelSet, Shape]


def without_whole_blocks(ledger: Ledger, operands: Sequence[Operand], what: str) -> list[Operand]:
    """The operands of an op without labels of whole blocks that another operand keeps: those are pinned.

    A temperature for each head meets heads that lose width. Tied to them it could only leave with a whole
    head, and since each head stays, neither would.
    """
    return [
        (_left(ledger, own, [labels for i, (labels, _) in enumerate(operands) if i != at], what), own[1])
        for at, own in enumerate(operands)
    ]


def _left(ledger: Ledger, own: Operand, others: Sequence[LabelSet], what: str) -> LabelSet:
    labels, shape = own
    wide = {d for d, size in enumerate(shape) if size > 1}
    standing = [set(span(array)) for other in others for array in other if _loses_width(ledger, array, wide)]
    whole = [any(set(span(array)) < dims for dims in standing) for array in labels]
    ledger.pin(
        tuple(array for array, held in zip(labels, whole, strict=True) if held),
        f"{what} meets blocks of which each stays",
    )
    return tuple(array for array, held in zip(labels, whole, strict=True) if not held)


def _loses_width(ledger: Ledger, array: LabelArray, wide: set[int]) -> bool:
    """Whether `array` loses channels along a dim that is not `wide`, and keeps some of each line."""
    if len(span(array)) < 2:
        return False
    dim = ledger.narrowing(array)
    return dim is not None and dim not in wide and ledger.stays(array)
