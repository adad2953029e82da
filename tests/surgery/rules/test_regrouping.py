import pytest
import torch.nn.functional as F
from torch import nn

from tests.surgery.rules.probe import Probe
from tests.surgery.rules.sandwich import check_cut


def strided(x):
    n, c, _, _ = x.shape
    return x.as_strided((n, c, 1, 1), (c, 1, c, c))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.glu(x, 1),
        lambda x: F.glu(x, -1),
        nn.ChannelShuffle(3),
        lambda x: x * strided(x.mean((2, 3), keepdim=True)),
    ],
)
def test_without_some_channels_it_answers_as_it_must(function):
    check_cut(function)


def test_the_halves_of_a_gated_unit_leave_together():
    probe = Probe(lambda x: F.glu(x, 1), (2, 6, 3))
    units = probe.units(probe.labels(0, 1))
    assert (units[:3] == units[3:]).all()
    assert (probe.units(probe.ledger.vector(probe.outputs[0], 1)) == units[:3]).all()


def test_shuffled_channels_leave_with_their_like_in_each_group():
    probe = Probe(lambda x: F.channel_shuffle(x, 2), (1, 6, 3, 3))
    probe.check_moved()
    units = probe.units(probe.labels(0, 1))
    assert (units[:3] == units[3:]).all()


def test_memory_read_as_it_lies_is_pinned():
    probe = Probe(lambda x: x.as_strided((2, 3), (1, 2)), (3, 2))
    assert not probe.free(0, 0)
    assert "as it lies" in probe.reasons
