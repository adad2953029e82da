import pytest
import torch

from tests.surgery.rules.probe import Probe


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum(1),
        lambda x: x.mean(1, keepdim=True),
        lambda x: x.mean((1, 3)),
        lambda x: x.amax(1),
        lambda x: x.amin((1,), keepdim=True),
        lambda x: x.prod(1),
        lambda x: x.logsumexp(1),
        lambda x: x.norm(dim=1),
        lambda x: torch.linalg.vector_norm(x, dim=1),
        lambda x: x.var(1),
        lambda x: x.std(1, keepdim=True),
        lambda x: (x > 1).any(1),
        lambda x: (x > 1).all(1),
        lambda x: torch.var_mean(x, 1),
    ],
)
def test_a_reduced_dim_may_shrink_and_is_noted(function):
    probe = Probe(function, (2, 5, 3, 4))
    assert probe.free(0, 1)
    assert probe.free(0, 2)
    assert len(probe.ledger.sites) == 1
    (site,) = probe.ledger.sites.values()
    assert any(set(a.reshape(-1)) == set(probe.labels(0, 1)) for a in site.inputs[0])


@pytest.mark.parametrize(
    ("function", "dims"),
    [
        (lambda x: x.sum((2, 3)), (0, 1)),
        (lambda x: x.amax(0), (1, 2, 3)),
        (lambda x: x.mean(-1, keepdim=True), (0, 1, 2)),
        (lambda x: torch.var_mean(x, 1)[1], (0, 2, 3)),
    ],
)
def test_the_other_dims_pass(function, dims):
    probe = Probe(function, (2, 5, 3, 4))
    got = [set(array.reshape(-1)) for array in probe.ledger.labels(probe.outputs[0])]
    assert got == [set(probe.labels(0, dim)) for dim in dims]
    assert all(probe.free(0, dim) for dim in range(4))


def test_a_reduction_of_everything_leaves_no_labels():
    probe = Probe(lambda x: x.sum(), (2, 5))
    assert probe.ledger.labels(probe.outputs[0]) == ()


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x.max(1), "number of a channel"),
        (lambda x: x.argmax(1), "number of a channel"),
        (lambda x: x.argmin(), "number of a channel"),
        (lambda x: x.softmax(1), "along the channels"),
        (lambda x: x.log_softmax(1), "along the channels"),
        (lambda x: x.cumsum(1), "along the channels"),
        (lambda x: x.flip(1), "along the channels"),
        (lambda x: x.roll(1, 1), "along the channels"),
        (lambda x: x.roll(1), "fixed|no rule|along the channels|splits|lays"),
        (lambda x: x.sort(1), "along the channels"),
        (lambda x: x.topk(2, 1), "along the channels"),
        (lambda x: x.view(2, 3, 2).sum(1), "jointly labelled"),
        (lambda x: x.median(1), "ranks along"),
        (lambda x: x.gather(1, torch.zeros(2, 1, dtype=torch.long)), "by number"),
    ],
)
def test_what_depends_on_the_order_of_channels_pins_them(function, reason):
    probe = Probe(function, (2, 6))
    assert not probe.free(0, 1)
    assert any(part in probe.reasons for part in reason.split("|"))


def test_softmax_over_another_dim_lets_channels_pass():
    probe = Probe(lambda x: x.softmax(-1), (2, 6, 3))
    assert probe.free(0, 1)
    assert not probe.free(0, 2)
    assert (probe.ledger.vector(probe.outputs[0], 1) == probe.labels(0, 1)).all()


def test_the_maximum_of_two_tensors_ties_them():
    assert Probe(torch.max, (2, 6), (2, 6)).tied(0, 1, 1, 1)
