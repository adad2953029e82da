import pytest
import torch
import torch.nn.functional as F

from tests.surgery.rules.probe import Probe
from tests.surgery.rules.sandwich import check_cut

C = 6


def batch_norm(x, mean, var, weight, bias):
    return F.batch_norm(x, mean, var, weight, bias)


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (batch_norm, [(2, C, 3, 4), (C,), (C,), (C,), (C,)]),
        (lambda x, w, b: F.instance_norm(x, weight=w, bias=b), [(1, C, 3, 4), (C,), (C,)]),
        (lambda x, w, b: F.group_norm(x, 3, w, b), [(2, C, 3, 4), (C,), (C,)]),
        (lambda x, w, b: F.layer_norm(x.movedim(1, -1), (C,), w, b), [(2, C, 3, 4), (C,), (C,)]),
    ],
)
def test_all_of_a_norm_leaves_with_the_channel(function, shapes):
    probe = Probe(function, *shapes)
    assert all(probe.tied(0, 1, i, 0) for i in range(1, len(shapes)))
    assert probe.free(0, 1)
    out = probe.ledger.vector(probe.outputs[0], probe.outputs[0].shape.index(C))
    assert (probe.units(out) == probe.units(probe.labels(0, 1))).all()


def test_groups_shrink_alike_and_are_noted():
    probe = Probe(lambda x: F.group_norm(x, 3), (2, C, 4))
    assert [b.rows.shape for b in probe.ledger.blocks] == [(3, 2)]
    assert len(probe.ledger.sites) == 1
    assert not probe.free(0, 2)


def test_layer_norm_is_noted():
    assert len(Probe(lambda x: F.layer_norm(x, (C,)), (2, C)).ledger.sites) == 1


def test_layer_norm_over_two_axes_lets_each_shrink():
    probe = Probe(lambda x, w: F.layer_norm(x, (C, 3), w), (2, C, 3), (C, 3))
    assert probe.tied(0, 1, 1, 0)
    assert probe.tied(0, 2, 1, 1)


def test_batch_norm_over_channels_that_are_fixed_is_pinned():
    image = torch.rand(2, C, 4, 4, dtype=torch.float64)
    probe = Probe(lambda mean, var: F.batch_norm(image, mean, var), (C,), (C,))
    assert not probe.free(0, 0)
    assert not probe.free(1, 0)


def test_weight_norm_is_noted_since_a_filter_of_zeros_has_no_direction():
    probe = Probe(lambda v, g: torch._weight_norm(v, g, 0), (C, 4, 3, 3), (C, 1, 1, 1))
    assert probe.tied(0, 0, 1, 0)
    assert probe.free(0, 0)
    assert probe.free(0, 1)
    assert len(probe.ledger.sites) == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.group_norm(x, 3),
        lambda x: F.group_norm(x, x.shape[1]),
        lambda x: F.layer_norm(x.movedim(1, -1), (x.shape[1],)).movedim(-1, 1),
        lambda x: (
            F.layer_norm(x.view(2, 3, -1, 8, 8).movedim(2, -1), (x.shape[1] // 3,))
            .movedim(-1, 2)
            .flatten(1, 2)
        ),
        lambda x: F.layer_norm(x, x.shape[2:]),
        lambda x: ((y := x.view(2, 3, -1)) / y.std(2, keepdim=True)).view(x.shape),
    ],
    ids=["groups", "each channel", "channels", "each row", "places", "by hand"],
)
def test_what_is_left_answers_as_it_did(function):
    check_cut(function)
