import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.surgery.rules.probe import Probe
from tests.surgery.rules.sandwich import check_cut


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda a, b: torch.cat([a, b], 1), [(2, 3, 4), (2, 5, 4)]),
        (lambda a, b: torch.cat([a, b, a], -1), [(2, 3), (2, 5)]),
        (lambda a: torch.cat([a, a], 0), [(2, 3)]),
        (lambda a: torch.cat([torch.zeros(0, dtype=a.dtype), a.view(-1)]), [(1, 3)]),
        (lambda a, b: torch.stack([a, b], 1), [(2, 3), (2, 3)]),
        (lambda a: a.split([2, 2], 1), [(3, 4)]),
        (lambda a: a.chunk(2, 1), [(3, 4)]),
        (lambda a: a.split(3, 1), [(3, 7)]),
        (lambda a: a.unbind(0), [(3, 4)]),
        (lambda a: a.view(3, 4, 2).unbind(1), [(3, 8)]),
        (lambda a: a.select(1, 2), [(3, 4)]),
        (lambda a: a.view(3, 4, 2)[:, 1], [(3, 8)]),
        (lambda a: a[:, :2], [(3, 4)]),
        (lambda a: a[:, 2:], [(3, 4)]),
        (lambda a: a[:, ::2], [(3, 4)]),
        (lambda a: a[1:, :3], [(3, 7)]),
        (lambda a: a.narrow(1, 2, 2), [(3, 4)]),
        (lambda a: F.pad(a, (1, 2, 0, 1)), [(2, 3, 4)]),
        (lambda a: F.pad(a, (-1, 0)), [(2, 3)]),
    ],
)
def test_labels_are_joined_and_cut_as_data_is(function, shapes):
    Probe(function, *shapes).check_moved()


def test_concatenation_keeps_each_part_free():
    probe = Probe(lambda a, b: torch.cat([a, b], 1), (2, 3, 4), (2, 5, 4))
    assert probe.free(0, 1)
    assert probe.free(1, 1)
    assert probe.tied(0, 2, 1, 2)


def test_stacked_tensors_are_tied():
    assert Probe(lambda a, b: torch.stack([a, b]), (2, 3), (2, 3)).tied(0, 1, 1, 1)


def test_equal_pieces_keep_equal_numbers():
    probe = Probe(lambda a: a.chunk(3, 1), (2, 12))
    (blocks,) = probe.ledger.blocks
    assert (blocks.rows.reshape(3, 4) == probe.labels(0, 1).reshape(3, 4)).all()
    assert probe.free(0, 1)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda a: a.split([3, 5], 1), "cannot be rewritten"),
        (lambda a: a.chunk(3, 1), "cannot be rewritten"),
        (lambda a: a[:, ::3], "by their number"),
        (lambda a: a[:, 0:6:2], "by their number"),
        (lambda a: a[:, 8:], "by their number"),
        (lambda a: a.select(1, 2), "by their number"),
        (lambda a: a.unbind(1), "by their number"),
        (lambda a: F.pad(a, (-1, 0)), "crops channels"),
    ],
)
def test_numbers_in_the_code_pin(function, reason):
    probe = Probe(function, (2, 8))
    assert not probe.free(0, 1)
    assert reason in probe.reasons


@pytest.mark.parametrize(
    ("function", "pinned"),
    [
        (lambda a: a[:, :3], {0, 1, 2}),
        (lambda a: a[:, :-3], {5, 6, 7}),
        (lambda a: a[:, -3:], {5, 6, 7}),
        (lambda a: a[:, 3:], {0, 1, 2}),
        (lambda a: a[:, 2:5], {0, 1, 2, 3, 4}),
        (lambda a: a[:, 2:-2], {0, 1, 6, 7}),
        (lambda a: a[:, -6:-2], {2, 3, 4, 5, 6, 7}),
        (lambda a: a.narrow(1, 2, 3), {0, 1, 2, 3, 4}),
        (lambda a: a[:, :], set()),
        (lambda a: a[:, :100], set()),
    ],
)
def test_a_slice_at_a_number_pins_what_the_number_counts(function, pinned):
    probe = Probe(lambda a: function(a * 2), (2, 8))
    assert set(np.flatnonzero(probe.units(probe.labels(0, 1)) == 0)) == pinned
    # Whatever else leaves, the same slice then holds what is left of what it held.
    whole = torch.arange(8)[None]
    for leaves in set(range(8)) - pinned:
        got = function(whole[whole != leaves][None])[0].tolist()
        assert got == [i for i in function(whole)[0].tolist() if i != leaves]


@pytest.mark.parametrize("function", [lambda a: a[:, :3], lambda a: a[:, 2:], lambda a: a[:, ::2]])
def test_a_table_of_which_a_part_is_read_is_pinned_since_another_input_may_read_more(function):
    probe = Probe(function, (2, 8))
    assert not probe.units(probe.labels(0, 1)).any()
    assert "reads a part of a parameter" in probe.reasons
    assert probe.free(0, 0)


def test_a_strided_slice_ties_each_run():
    probe = Probe(lambda a: (a * 2)[:, 1::2], (2, 8))
    units = probe.units(probe.labels(0, 1)).reshape(4, 2)
    assert (units == units[:, :1]).all()
    assert len(set(units[:, 0]) - {0}) == 4
    assert (probe.units(probe.ledger.vector(probe.outputs[0], 1)) == units[:, 1]).all()


@pytest.mark.parametrize("view", [(1, 3, -1), (1, -1, 4)])
def test_rows_leave_whole_where_a_number_selects_a_column(view):
    probe = Probe(lambda a: a.view(view)[:, :, 1], (1, 12))
    units = probe.units(probe.labels(0, 1)).reshape(3, 4)
    assert (units == units[:, :1]).all()
    assert len(set(units[:, 0]) - {0}) == 3
    assert (probe.units(probe.ledger.vector(probe.outputs[0], 1)) == units[:, 1]).all()


def test_a_selected_row_keeps_as_many_as_the_others():
    probe = Probe(lambda a: a.view(1, 3, -1)[:, 1], (1, 12))
    labels = probe.labels(0, 1).reshape(3, 4)
    assert len(set(probe.units(labels.reshape(-1))) - {0}) == 12
    assert (probe.ledger.vector(probe.outputs[0], 1) == labels[1]).all()
    assert any((blocks.rows.reshape(-1, 4) == labels).all() for blocks in probe.ledger.blocks)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[:, x.shape[1] // 2 :],
        lambda x: x[:, : x.shape[1] // 2] * 2,
        lambda x: x[:, 1::2],
        lambda x: torch.cat([x[:, x.shape[1] // 4 :], x], 1),
        lambda x: x.view(len(x), 3, -1, 8, 8)[:, 1],
        lambda x: torch.cat(x.view(len(x), 3, -1, 8, 8).unbind(1), 1),
        lambda x: sum(x.chunk(3, 1)),
        lambda x: torch.stack([x, x * 2], 2).flatten(1, 2),
        lambda x: torch.cat(x.split(x.shape[1] // 4, 1)[::-1], 1),
        lambda x: F.pad(x, (0, 0, 0, 0, 2, 1)),
    ],
)
def test_what_is_left_answers_as_it_did(function):
    check_cut(function)
