import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.surgery.rules.probe import Probe


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
    assert [b.rows.shape for b in probe.ledger.blocks] == [(3, 4)]
    assert probe.free(0, 1)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda a: a.split([3, 5], 1), "cannot be rewritten"),
        (lambda a: a.chunk(3, 1), "cannot be rewritten"),
        (lambda a: a[:, :3], "by their number"),
        (lambda a: a[:, ::2], "by their number"),
        (lambda a: a.select(1, 2), "by their number"),
        (lambda a: a.unbind(1), "by their number"),
        (lambda a: F.pad(a, (-1, 0)), "crops channels"),
    ],
)
def test_numbers_in_the_code_pin(function, reason):
    probe = Probe(function, (2, 8))
    assert not probe.free(0, 1)
    assert reason in probe.reasons


def test_selecting_from_a_joint_axis_keeps_its_rows_equal():
    probe = Probe(lambda a: a.view(2, 3, 4)[:, :, 1], (2, 12))
    assert any(np.array_equal(b.rows, probe.labels(0, 1).reshape(3, 4).T) for b in probe.ledger.blocks)
