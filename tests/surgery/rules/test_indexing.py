import pytest
import torch
import torch.nn.functional as F

from tests.surgery.rules.probe import Probe

ROWS = torch.tensor([2, 0, 1])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.embedding(ROWS, x.flatten(1)),
        lambda x: x[ROWS],
        lambda x: x.index_select(0, ROWS),
        lambda x: x[ROWS, torch.tensor([1, 1, 0])],
        lambda x: x[torch.tensor([True, False, True, False])],
    ],
)
def test_the_indexed_dim_is_pinned_and_the_others_move_as_data(function):
    probe = Probe(function, (4, 3, 5))
    probe.check_moved()
    assert not probe.free(0, 0)
    assert "number" in probe.reasons


def test_other_dims_stay_free():
    assert Probe(lambda x: x[ROWS], (4, 3, 5)).free(0, 2)
    middle = Probe(lambda x: x[:, ROWS], (4, 3, 5))
    middle.check_moved()
    assert [middle.free(0, d) for d in range(3)] == [True, False, True]
    assert Probe(lambda x: F.embedding(ROWS, x), (4, 5)).free(0, 1)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[ROWS, :, torch.tensor([0, 1, 2])],
        lambda x: x[torch.ones(4, 3, dtype=torch.bool)],
        lambda x: torch.masked_select(x, torch.ones(5, dtype=torch.bool)),
        lambda x: x.index_put_((ROWS,), torch.zeros(5, dtype=x.dtype)),
    ],
)
def test_what_moves_channels_about_pins_them_all(function):
    probe = Probe(function, (4, 3, 5))
    assert not any(probe.free(0, d) for d in range(3))
