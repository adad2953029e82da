import pytest
import torch

from tests.surgery.rules.probe import Probe


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


def test_columns_leave_whole_where_rows_come_last():
    probe = Probe(lambda x: x.view(2, 3, 4).transpose(1, 2).reshape(2, 12), (2, 12))
    units = probe.units(probe.labels(0, 1)).reshape(3, 4)
    assert (units == units[:1]).all()
    assert len(set(units[0])) == 4
    back = Probe(lambda x: x.view(2, 3, 4).reshape(2, 12), (2, 12))
    assert len(set(back.units(back.labels(0, 1)))) == 12


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
