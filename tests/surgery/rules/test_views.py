import numpy as np
import pytest
import torch

from tests.surgery.rules.probe import Probe
from tests.surgery.rules.sandwich import check_cut


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x: x.view(2, 3, 4, 5), (2, 12, 5)),
        (lambda x: x.reshape(2, 60), (2, 3, 4, 5)),
        (lambda x: x.reshape(6, 20), (2, 3, 4, 5)),
        (lambda x: x.reshape(3, 8), (6, 4)),
        (lambda x: x.flatten(1), (2, 12, 1, 1)),
        (lambda x: x.unflatten(1, (4, 3)), (2, 12, 5)),
        (lambda x: x.permute(2, 0, 1), (2, 3, 5)),
        (lambda x: x.movedim(-1, 1), (2, 3, 5)),
        (lambda x: x.transpose(-1, 0), (2, 3, 5)),
        (lambda x: x.t(), (2, 3)),
        (lambda x: x.mT, (2, 3, 5)),
        (lambda x: x.unsqueeze(-1), (2, 3)),
        (lambda x: x.unsqueeze(0), (2, 3)),
        (lambda x: x.squeeze(), (2, 1, 3, 1)),
        (lambda x: x.squeeze(-1), (2, 1, 3, 1)),
        (lambda x: x.squeeze((1, 3)), (2, 1, 3, 1)),
        (lambda x: x.expand(4, 2, 3, 5), (2, 3, 1)),
        (lambda x: x.repeat(2, 3, 2), (4, 5)),
        (lambda x: x.repeat(3, 2), (4, 1)),
        (lambda x: x.repeat_interleave(3, dim=1), (2, 5)),
        (lambda x: x.view(2, 3, 4).transpose(1, 2).reshape(2, 12), (2, 12)),
    ],
)
def test_labels_are_viewed_as_data_is(function, shape):
    Probe(function, shape).check_moved()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.permute(1, 0),
        lambda x: x.unsqueeze(1),
        lambda x: x.expand(3, 4, 6),
        lambda x: x.repeat(2, 1),
    ],
)
def test_nothing_is_pinned_without_need(function):
    probe = Probe(function, (4, 6))
    assert probe.free(0, 0)
    assert probe.free(0, 1)


def test_a_split_axis_keeps_equal_rows():
    probe = Probe(lambda x: x.view(2, 3, 4), (2, 12))
    (blocks,) = probe.ledger.blocks
    assert (blocks.rows == probe.labels(0, 1).reshape(3, 4)).all()


@pytest.mark.parametrize(
    ("function", "tied"),
    [
        (lambda x: x.view(1, 3, -1).transpose(1, 2).reshape(1, -1), "columns"),
        (lambda x: x.view(1, -1, 4).transpose(1, 2).reshape(1, -1), "rows"),
        (lambda x: x.view(1, 3, -1).reshape(1, -1), ""),
        (lambda x: x.view(1, -1, 4).reshape(1, -1), "rows"),
        (lambda x: x.view(1, 3, -1).permute(2, 0, 1).reshape(-1, 3), ""),
    ],
)
def test_lines_leave_whole_where_those_that_stay_would_change_their_order(function, tied):
    probe = Probe(function, (1, 12))
    units = probe.units(probe.labels(0, 1)).reshape(3, 4)
    expected = {
        "columns": np.broadcast_to(units[:1], (3, 4)),
        "rows": np.broadcast_to(units[:, :1], (3, 4)),
        "": units,
    }[tied]
    assert (units == expected).all()
    assert len(set(units.reshape(-1))) == {"columns": 4, "rows": 3, "": 12}[tied]
    assert (units > 0).all()


@pytest.mark.parametrize(
    ("function", "number"),
    [
        (lambda x: x.view(2, 3, 4).transpose(1, 2), 4),
        (lambda x: x.reshape(-1, 12), 12),
        (lambda x: x.view(2, 12, 1, 1), 12),
        (lambda x: x.view(-1, 3, 4).transpose(1, 2).reshape(-1, 12), 4),
        (lambda x: x.view(2, 3, -1).transpose(1, 2).reshape(2, 12), 12),
    ],
)
def test_a_number_for_the_dim_that_would_give_way_pins(function, number):
    probe = Probe(function, (2, 12))
    assert not probe.free(0, 1)
    assert f"is given the number {number} for its length" in probe.reasons


@pytest.mark.parametrize(
    ("function", "columns"),
    [(lambda x: x.view(2, 3, -1), 4), (lambda x: x.unflatten(1, (6, -1)), 2)],
)
def test_each_row_of_a_split_axis_keeps_as_many_of_its_own(function, columns):
    probe = Probe(function, (2, 12))
    (blocks,) = probe.ledger.blocks
    assert (blocks.rows.reshape(-1, columns) == probe.labels(0, 1).reshape(-1, columns)).all()
    assert len(set(probe.units(probe.labels(0, 1))) - {0}) == 12


def test_rows_of_a_split_axis_leave_whole_where_their_length_is_fixed():
    probe = Probe(lambda x: x.view(2, -1, 4), (2, 12))  # `(-1, 4)` of what is left would mix its columns up
    units = probe.units(probe.labels(0, 1)).reshape(3, 4)
    assert (units == units[:, :1]).all()
    assert len(set(units[:, 0]) - {0}) == 3


def blocks_of(x, *shape):
    return x.view(len(x), *shape, *x.shape[2:])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: blocks_of(x, 3, -1).transpose(1, 2).flatten(1, 2),
        lambda x: blocks_of(x, -1, 4).transpose(1, 2).flatten(1, 2),
        lambda x: blocks_of(x, -1, 4).mean(2),
        lambda x: blocks_of(x, x.shape[1] // 4, 4).flatten(1, 2),
        lambda x: blocks_of(x, 3, x.shape[1] // 3).flip(1).flatten(1, 2),
        lambda x: x.flatten(2).movedim(1, -1).reshape(x.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2),
    ],
)
def test_what_is_left_answers_as_it_did(function):
    check_cut(function)


def test_two_kinds_of_channels_on_one_axis_are_not_mixed_up():
    probe = Probe(lambda x: x.flatten(1), (2, 3, 4))
    assert probe.free(0, 1) != probe.free(0, 2)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.clone().unsqueeze_(-1),
        lambda x: x.clone().squeeze_(1),
        lambda x: x.clone().transpose_(0, 1),
        lambda x: x.view(torch.int32),
        lambda x: x.as_strided((2, 2), (1, 2)),
    ],
)
def test_what_cannot_be_followed_is_pinned(function):
    probe = Probe(function, (4, 1, 6))
    assert not probe.free(0, 0)
    assert not probe.free(0, 2)
