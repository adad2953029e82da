import pytest
import torch.nn.functional as F

from tests.surgery.rules.probe import Probe


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.adaptive_avg_pool2d(x, 2),
        lambda x: F.adaptive_max_pool2d(x, 3),
        lambda x: F.interpolate(x, scale_factor=2),
        lambda x: F.interpolate(x, (5, 7), mode="nearest-exact"),
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
        lambda x: F.interpolate(x, (3, 3), mode="bilinear", antialias=True),
        lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
        lambda x: F.pad(x, (1, 1, 1, 1), mode="replicate"),
    ],
)
def test_channels_pass_and_space_is_pinned(function):
    probe = Probe(function, (4, 6, 4, 6))
    assert probe.free(0, 1)
    assert not probe.free(0, 2)
    assert not probe.free(0, 3)
    out = probe.outputs[0]
    assert (probe.ledger.vector(out, 1) == probe.labels(0, 1)).all()
    assert (probe.ledger.vector(out, 0) == probe.labels(0, 0)).all()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.interpolate(x.flatten(2), scale_factor=2, mode="linear"),
        lambda x: F.max_pool3d(x[:, :, None], (1, 2, 2)),
        lambda x: F.interpolate(x[:, :, None], scale_factor=2, mode="trilinear"),
    ],
)
def test_other_dimensions(function):
    probe = Probe(function, (4, 6, 4, 4))
    assert probe.free(0, 1)
    assert not probe.free(0, 2)


@pytest.mark.parametrize("function", [lambda x: F.pixel_shuffle(x, 2), lambda x: F.pixel_unshuffle(x, 2)])
def test_pixel_shuffles_move_channels_as_data(function):
    probe = Probe(function, (2, 12, 12, 12))  # as many channels as rows and columns
    probe.check_moved()
    assert probe.free(0, 1)
    assert not probe.free(0, 2)
    assert not probe.free(0, 3)


def test_pixel_shuffle_ties_the_channels_of_one_pixel():
    probe = Probe(lambda x: F.pixel_shuffle(x, 2), (1, 12, 3, 3))
    units = probe.units(probe.labels(0, 1)).reshape(3, 4)
    assert (units == units[:, :1]).all()
    assert len(set(units[:, 0])) == 3


def test_a_single_channel_cannot_leave():
    assert not Probe(lambda x: F.pixel_shuffle(x, 2), (1, 4, 3, 3)).free(0, 1)
