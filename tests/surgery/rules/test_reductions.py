import pytest
import torch
import torch.nn.functional as F

from tests.surgery.rules.probe import Probe
from tests.surgery.rules.sandwich import check_cut


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
        (lambda x: x.max(1)[1] + 1, "aten.add reads the number of a channel"),
        (lambda x: x.min(1, keepdim=True)[1].to(torch.float64), "reads the number of a channel"),
        (lambda x: x.argmax(1), "number of a channel"),
        (lambda x: x.argmin(), "number of a channel"),
        (lambda x: x.cumsum(1), "along the channels"),
        (lambda x: x.flip(1), "along the channels"),
        (lambda x: x.roll(1, 1), "along the channels"),
        (lambda x: x.roll(1), "fixed|no rule|along the channels|splits|lays"),
        (lambda x: x.sort(1), "along the channels"),
        (lambda x: x.topk(2, 1), "along the channels"),
        (lambda x: x.median(1), "ranks along"),
        (lambda x: x.gather(1, torch.zeros(2, 1, dtype=torch.long)), "by number"),
    ],
)
def test_what_depends_on_the_order_of_channels_pins_them(function, reason):
    probe = Probe(function, (2, 6))
    assert not probe.free(0, 1)
    assert any(part in probe.reasons for part in reason.split("|"))


@pytest.mark.parametrize("function", [lambda x: x.max(1), lambda x: x.min(1)[0] * 2])
def test_an_extreme_whose_number_is_not_read_pins_nothing(function):
    probe = Probe(function, (2, 6))
    assert probe.free(0, 1)
    assert len(probe.ledger.sites) == 1


OVER = [
    lambda x, dim: x.sum(dim),
    lambda x, dim: x.amax(dim, keepdim=True),
    lambda x, dim: x.max(dim)[0],
    lambda x, dim: x.softmax(dim),
    lambda x, dim: x.cumsum(dim),
    lambda x, dim: x.flip(dim),
    lambda x, dim: x.sort(dim)[0],
]


@pytest.mark.parametrize("function", OVER, ids=range(len(OVER)))
@pytest.mark.parametrize(("view", "dim"), [((1, 3, -1), 1), ((1, -1, 4), 2)])
def test_what_is_mixed_over_whole_lines_of_blocks_leaves_with_them(function, view, dim):
    probe = Probe(lambda x: function(x.view(view), dim), (1, 12))  # channels leave along the other dim
    units = probe.units(probe.labels(0, 1)).reshape(3, 4)
    expected = units[:1] if dim == 1 else units[:, :1]
    assert (units == expected).all()
    assert len(set(units.reshape(-1)) - {0}) == expected.size
    assert not probe.ledger.sites
    out = [set(probe.units(a).reshape(-1)) for a in probe.ledger.labels(probe.outputs[0])]
    assert out == [set(expected.reshape(-1))]


@pytest.mark.parametrize(("view", "dim", "units"), [((1, 3, -1), 2, 12), ((1, -1, 4), 1, 3)])
def test_a_reduction_over_the_dim_that_gives_way_is_taken_over_what_is_kept(view, dim, units):
    probe = Probe(lambda x: x.view(view).mean(dim), (1, 12))
    assert len(set(probe.units(probe.labels(0, 1))) - {0}) == units
    assert len(probe.ledger.sites) == 1
    assert probe.ledger.labels(probe.outputs[0]) == ()


def blocks_of(x):
    return x.view(len(x), 3, -1, 8, 8)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: blocks_of(x).softmax(1).flatten(1, 2),
        lambda x: blocks_of(x).mean(2),
        lambda x: blocks_of(x).mean(1),
        lambda x: blocks_of(x).amax(1, keepdim=True).flatten(1, 2),
        lambda x: torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0], x], 1),
        lambda x: ((y := blocks_of(x)) / y.var(2, keepdim=True)).flatten(1, 2),
    ],
)
def test_what_is_left_answers_as_it_did(function):
    check_cut(function)


SOFTMAX = [
    lambda x, dim: x.softmax(dim),
    lambda x, dim: x.log_softmax(dim),
    torch._safe_softmax,
]


@pytest.mark.parametrize("function", SOFTMAX, ids=["softmax", "log", "safe"])
def test_softmax_is_taken_over_what_is_kept_and_all_dims_pass(function):
    probe = Probe(lambda x: function(x, -1), (2, 6, 3))
    assert all((probe.ledger.vector(probe.outputs[0], d) == probe.labels(0, d)).all() for d in range(3))
    assert all(probe.free(0, d) for d in range(3))
    (site,) = probe.ledger.sites.values()
    assert [a.reshape(-1).tolist() for a in site.over] == [probe.labels(0, 2).tolist()]
    assert site.inputs[0] == site.outputs[0]


def test_softmax_along_the_dim_that_gives_way_is_of_each_line():
    probe = Probe(lambda x: x.view(2, 3, -1).softmax(2), (2, 12))  # the number 3 stays: lines lose width
    units = probe.units(probe.labels(0, 1))
    assert len(set(units) - {0}) == 12
    (site,) = probe.ledger.sites.values()
    assert [a.shape for a in site.over] == [(1, 3, 4)]
    assert any((probe.units(a).reshape(-1) == units).all() for a in probe.ledger.labels(probe.outputs[0]))


def test_softmax_of_which_nothing_labelled_is_weighed_is_not_noted():
    image = torch.rand(2, 6, 3, dtype=torch.float64)
    assert not Probe(lambda x: (x + image).softmax(-1), (1, 6, 1)).ledger.sites


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.softmax(1),
        lambda x: x.log_softmax(1) / 8,
        lambda x: blocks_of(x).softmax(2).flatten(1, 2),
        lambda x: (((y := x.flatten(2)) @ y.transpose(1, 2) / 64).softmax(-1) @ y)[..., None],
        lambda x: (((y := blocks_of(x).flatten(3)) @ y.transpose(-1, -2) / 64).softmax(-1) @ y).view(x.shape),
        lambda x: (((y := blocks_of(x).flatten(3)) @ y.transpose(-1, -2) / 64).softmax(-2) @ y).view(x.shape),
        lambda x: F.scaled_dot_product_attention(
            *[blocks_of(x).flatten(3)] * 2, blocks_of(x).flatten(3) * 2, scale=0.1
        ).view(x.shape),
    ],
    ids=["channels", "logarithms", "each row", "matrix", "heads", "heads, keys first", "fused"],
)
def test_a_distribution_over_what_is_left_answers_as_it_did(function):
    check_cut(function)


def test_the_maximum_of_two_tensors_ties_them():
    assert Probe(torch.max, (2, 6), (2, 6)).tied(0, 1, 1, 1)
