"""Labels of whole blocks that meet blocks which lose width: expectations are worked out by hand."""

import numpy as np
import pytest

from seg_pruning.surgery.ledger import Ledger

WIDTHS = np.arange(1, 13).reshape(1, 3, 4)
HEADS = np.arange(13, 16).reshape(1, 3, 1)
PLACES = np.arange(16, 20).reshape(1, 1, 4)


def ledger_of_heads(*, stay):
    """A ledger in which each head of `WIDTHS` keeps as many channels as every other."""
    ledger = Ledger()
    ledger.count = 20
    ledger.equal_rows(WIDTHS, "heads", stay=stay)
    return ledger


def met(ledger, labels, shape):
    """The label arrays of a product of `WIDTHS` and another tensor, and which labels are pinned."""
    found = ledger.merge([((WIDTHS,), (5, 3, 4)), (labels, shape)], 3, "product")
    return [array.tolist() for array in found], {int(n) for array, _ in ledger.pins for n in array}


@pytest.mark.parametrize("shape", [(5, 3, 1), (3, 1)])
def test_what_stands_for_whole_heads_is_pinned_where_each_head_stays(shape):
    ledger = ledger_of_heads(stay=True)
    found, pinned = met(ledger, (HEADS.reshape(HEADS.shape[-len(shape) :]),), shape)
    assert found == [WIDTHS.tolist()]
    assert pinned == {13, 14, 15}
    assert not ledger.ties


def test_it_leaves_with_its_head_where_heads_may_leave():
    ledger = ledger_of_heads(stay=False)
    found, pinned = met(ledger, (HEADS,), (5, 3, 1))
    assert {tuple(np.ravel(array)) for array in found} <= {(1, 5, 9), (13, 14, 15)}
    assert len(found) == 1
    assert not pinned
    assert len(ledger.ties) > 0


def test_it_is_tied_where_the_other_tensor_is_as_wide_as_a_head():
    ledger = ledger_of_heads(stay=True)
    found, pinned = met(ledger, (HEADS,), (5, 3, 4))
    assert len(found) == 1
    assert not pinned
    assert len(ledger.ties) > 0


def test_what_stands_along_the_width_is_tied_to_it():
    ledger = ledger_of_heads(stay=True)
    _, pinned = met(ledger, (PLACES,), (5, 3, 4))
    assert not pinned
    assert any(set(PLACES.reshape(-1)) <= {*a, *b} for a, b in ledger.ties)
