import pytest
import torch
import torch.nn.functional as F

from tests.surgery.rules.probe import Probe
from tests.surgery.rules.sandwich import check_cut

GRID = torch.rand(2, 5, 6, 2, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2


def spectrum(x):
    return torch.fft.irfft2(torch.fft.rfft2(x) * torch.linspace(0, 1, 5), s=x.shape[-2:])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.grid_sample(x, GRID, align_corners=False),
        lambda x: F.grid_sample(x.unsqueeze(2), F.pad(GRID, (0, 1)).unsqueeze(1), align_corners=True).squeeze(
            2
        ),
        lambda x: x.unfold(2, 3, 1).unfold(3, 2, 2).mean((-1, -2)),
        lambda x: F.unfold(x, 3, padding=1).view(x.shape[0], -1, *x.shape[2:]),
        lambda x: F.unfold(x, 2, stride=2).view(x.shape[0], x.shape[1], 4, 4, 4).amax(2),
        lambda x: F.fold(F.unfold(x, 2, stride=2), 8, 2, stride=2),
        lambda x: F.fold(x.flatten(2), (9, 9), 2, stride=1),
        lambda x: F.max_unpool3d(
            *F.max_pool3d(x.unsqueeze(2), (1, 2, 2), return_indices=True), (1, 2, 2)
        ).squeeze(2),
        lambda x: F.interpolate(x.flatten(2), 20, mode="nearest-exact").unflatten(2, (4, 5)),
        lambda x: F.interpolate(x.unsqueeze(2), (2, 4, 4), mode="nearest-exact").sum(2),
        spectrum,
        lambda x: torch.fft.fft(x, dim=-1).abs(),
        lambda x: torch.view_as_complex(torch.view_as_real(torch.fft.fft2(x)).contiguous()).real,
    ],
)
def test_without_some_channels_it_answers_as_it_must(function):
    check_cut(function, width=16)


@pytest.mark.parametrize(
    ("function", "dim"),
    [
        (lambda x: x.unfold(1, 3, 1), 1),
        (lambda x: torch.fft.fft(x, dim=1).real, 1),
        (lambda x: F.grid_sample(x, GRID.double(), align_corners=False), 2),
        (lambda x: F.unfold(x, 2), 3),
    ],
)
def test_what_is_moved_over_is_pinned(function, dim):
    probe = Probe(function, (2, 6, 4, 4))
    assert not probe.free(0, dim)
    assert "has no rule" not in probe.reasons


def test_a_grid_that_is_computed_is_pinned():
    probe = Probe(lambda x, grid: F.grid_sample(x, grid, align_corners=False), (2, 6, 4, 4), (2, 5, 6, 2))
    assert probe.free(0, 1)
    assert not any(probe.free(1, dim) for dim in range(4))


@pytest.mark.parametrize("shape", [(2, 6, 4, 4), (6, 4, 4)])
def test_each_channel_becomes_as_many_rows_as_the_kernel_has_places(shape):
    probe = Probe(lambda x: F.unfold(x, 3), shape)
    rows = probe.ledger.vector(probe.outputs[0], probe.outputs[0].ndim - 2)
    assert (rows == probe.labels(0, len(shape) - 3).repeat(9)).all()
