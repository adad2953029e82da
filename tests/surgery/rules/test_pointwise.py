import pytest
import torch
import torch.nn.functional as F

from tests.surgery.rules.probe import Probe


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a + b,
        lambda a, b: a.add_(b),
        lambda a, b: torch.maximum(a, b),
        lambda a, b: torch.where(a > 0, a, b),
        lambda a, b: torch.lerp(a, b, 0.5),
        lambda a, b: a.copy_(b),
        lambda a, b: a.masked_fill(b > 1, 0.0),
        lambda a, b: torch.addcmul(a, a, b),
        lambda a, b: torch.empty_like(a).copy_(b) * a,
        lambda a, b: torch.add(a, b, out=torch.empty(2, 5, 3, dtype=a.dtype)),
    ],
)
def test_labels_that_meet_are_tied(function):
    probe = Probe(function, (2, 5, 3), (2, 5, 3))
    assert all(probe.tied(0, d, 1, d) and probe.free(0, d) for d in range(3))


@pytest.mark.parametrize("shape", [(5, 1), (1, 5, 1), (2, 5, 1)])
def test_a_dim_of_one_ties_nothing(shape):
    probe = Probe(lambda a, b: a * b, (2, 5, 3), shape)
    assert probe.tied(0, 1, 1, len(shape) - 2)
    assert probe.free(0, 2)
    assert (probe.ledger.vector(probe.outputs[0], 2) == probe.labels(0, 2)).all()


def test_what_meets_a_fixed_tensor_is_pinned():
    probe = Probe(lambda a: a + torch.arange(5.0), (2, 5))
    assert not probe.free(0, 1)
    assert probe.free(0, 0)


@pytest.mark.parametrize("make", [torch.zeros, torch.ones, torch.empty])
def test_what_meets_a_constant_tensor_is_free(make):
    assert Probe(lambda a: a + make(2, 5), (2, 5)).free(0, 1)


def test_writing_into_a_part_of_a_buffer_ties():
    def function(a, b):
        out = torch.zeros(2, 6, dtype=a.dtype)
        out[:, :3] = a
        out[:, 3:] = b
        return out * torch.ones(2, 6)

    probe = Probe(function, (2, 3), (2, 3))
    assert (
        probe.units(probe.ledger.vector(probe.outputs[0], 1))[:3] == probe.units(probe.labels(0, 1))
    ).all()
    assert (
        probe.units(probe.ledger.vector(probe.outputs[0], 1))[3:] == probe.units(probe.labels(1, 1))
    ).all()


@pytest.mark.parametrize(
    "function",
    [
        F.relu,
        F.gelu,
        torch.sigmoid,
        lambda a: a.clone(),
        lambda a: a.detach(),
        lambda a: a.float(),
        F.dropout,
        F.hardswish,
        F.hardtanh,
        F.logsigmoid,
        F.mish,
        F.relu6,
        lambda a: a.clone().abs_(),
        lambda a: F.hardswish(a.clone(), inplace=True),
        lambda a: F.mish(a.clone(), inplace=True),
        lambda a: F.threshold(a, 0.1, 0.0),
        lambda a: F.rrelu(a, training=False),
        lambda a: torch.rrelu_(a.clone(), training=True),
        lambda a: a.ge(0.5) * a,
        lambda a: torch.complex(a, a).conj().imag,
        lambda a: torch.polar(a, a).angle(),
        lambda a: torch.fake_quantize_per_tensor_affine(a, 0.1, 0, 0, 255),
        lambda a: torch.zeros_like(a).uniform_() + a,
    ],
)
def test_one_tensor_passes(function):
    probe = Probe(function, (2, 5))
    assert (probe.ledger.vector(probe.outputs[0], 1) == probe.labels(0, 1)).all()


@pytest.mark.parametrize("slopes", [(5,), (1,)])
def test_prelu(slopes):
    probe = Probe(F.prelu, (2, 5, 3), slopes)
    assert probe.free(0, 1)
    assert slopes == (1,) or probe.tied(0, 1, 1, 0)
