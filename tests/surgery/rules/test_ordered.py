import pytest
import torch

from tests.surgery.rules.probe import Probe
from tests.surgery.rules.sandwich import check_cut

ROWS = torch.tensor([3, 0, 2, 2])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.gather(x, 3, ROWS.expand(*x.shape[:3], 4)),
        lambda x: torch.take_along_dim(x, ROWS[None, None, None], 3),
        lambda x: torch.zeros_like(x).scatter(2, torch.arange(7, -1, -1).view(1, 1, -1, 1).expand_as(x), x),
        lambda x: torch.zeros_like(x).scatter_add_(2, torch.ones_like(x, dtype=torch.long), x),
        lambda x: x.clone().scatter_(3, torch.zeros(*x.shape[:3], 1, dtype=torch.long), 0.5),
        lambda x: torch.zeros_like(x).index_add_(2, torch.tensor([1, 1]), x[:, :, :2]),
        lambda x: x.index_copy(3, ROWS[:2], x[..., :2]),
        lambda x: x.index_fill(2, ROWS, 0.5),
        lambda x: x.cumsum(2).cumprod(3),
        lambda x: torch.cummax(x, 3).values + torch.logcumsumexp(x, 2),
        lambda x: x.tril() + x.triu(1),
        lambda x: x.median(3, keepdim=True).values + x.kthvalue(2, 2, keepdim=True)[0],
        lambda x: x.flatten(2).median(2).values[..., None, None],
    ],
)
def test_without_some_channels_it_answers_as_it_must(function):
    check_cut(function)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.gather(1, ROWS[None, :, None].expand(2, 4, 3)),
        lambda x: x.clone().scatter_(1, ROWS[None, :, None].expand(2, 4, 3), 0.0),
        lambda x: x.index_add(1, ROWS, x[:, :4]),
        lambda x: x.cummin(1).values,
        lambda x: x.tril(),
        lambda x: x.median(1).values,
        lambda x: x.median(),
        lambda x: x.renorm(2, 2, 1.0),
    ],
)
def test_channels_that_are_counted_are_pinned(function):
    probe = Probe(function, (2, 6, 3))
    assert not probe.free(0, 1)
    assert "has no rule" not in probe.reasons


def test_numbers_that_cover_a_corner_pin():
    probe = Probe(lambda x: x.gather(2, torch.zeros(2, 4, 3, dtype=torch.long)), (2, 6, 3))
    assert not probe.free(0, 1)
