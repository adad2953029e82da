import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from tests.surgery.rules.probe import Probe
from tests.surgery.rules.sandwich import check_cut


def test_convolution():
    probe = Probe(F.conv2d, (2, 4, 5, 5), (6, 4, 3, 3), (6,))
    assert probe.tied(0, 1, 1, 1)
    assert probe.tied(1, 0, 2, 0)
    assert (probe.ledger.vector(probe.outputs[0], 1) == probe.labels(1, 0)).all()
    assert [probe.free(1, d) for d in range(4)] == [True, True, False, False]
    assert [probe.free(0, d) for d in range(4)] == [False, True, False, False]
    assert not np.isin(probe.units(probe.labels(1, 0)), probe.units(probe.labels(0, 1))).any()


def test_transposed_convolution():
    probe = Probe(F.conv_transpose2d, (2, 4, 5, 5), (4, 6, 3, 3), (6,))
    assert probe.tied(0, 1, 1, 0)
    assert probe.tied(1, 1, 2, 0)
    assert (probe.ledger.vector(probe.outputs[0], 1) == probe.labels(1, 1)).all()


@pytest.mark.parametrize("function", [F.conv2d, F.conv_transpose2d])
def test_depthwise_convolution(function):
    probe = Probe(lambda x, w, b: function(x, w, b, groups=4), (2, 4, 5, 5), (4, 1, 3, 3), (4,))
    assert probe.tied(0, 1, 1, 0)
    assert probe.tied(1, 0, 2, 0)


def test_two_filters_for_each_channel():
    probe = Probe(lambda x, w: F.conv2d(x, w, groups=4), (2, 4, 5, 5), (8, 1, 3, 3))
    units = probe.root[probe.labels(1, 0)].reshape(4, 2)
    assert (units == probe.root[probe.labels(0, 1)][:, None]).all()


def test_convolution_of_an_image_that_is_fixed():
    image = torch.rand(1, 4, 5, 5, dtype=torch.float64)
    probe = Probe(lambda w: F.conv2d(image, w), (6, 4, 3, 3))
    assert probe.free(0, 0)
    assert not probe.free(0, 1)


def test_a_weight_without_known_channels_pins_all_of_its_convolution():
    weight = torch.rand(6, 4, 3, 3, dtype=torch.float64)
    probe = Probe(lambda x, b: F.conv2d(x, weight, b), (2, 4, 5, 5), (6,))
    assert not probe.free(0, 1)
    assert not probe.free(1, 0)


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (torch.matmul, [(5, 4), (4, 6)]),
        (torch.matmul, [(3, 5, 4), (3, 4, 6)]),
        (torch.matmul, [(1, 5, 4), (4, 6)]),
        (torch.matmul, [(1, 3, 5, 4), (1, 3, 4, 6)]),
        (lambda a, b: torch.einsum("bik,bkj->bij", a, b), [(3, 5, 4), (3, 4, 6)]),
    ],
)
def test_matrix_product(function, shapes):
    probe = Probe(function, *shapes)
    left, right = len(shapes[0]), len(shapes[1])
    assert probe.tied(0, left - 1, 1, right - 2)
    out = probe.outputs[0]
    assert (probe.units(probe.ledger.vector(out, -1)) == probe.units(probe.labels(1, right - 1))).all()
    assert (probe.units(probe.ledger.vector(out, -2)) == probe.units(probe.labels(0, left - 2))).all()


def test_linear():
    probe = Probe(F.linear, (2, 4), (6, 4), (6,))
    assert probe.tied(0, 1, 1, 1)
    assert probe.tied(1, 0, 2, 0)
    assert (probe.units(probe.ledger.vector(probe.outputs[0], 1)) == probe.units(probe.labels(1, 0))).all()
    assert probe.free(1, 0)
    assert probe.free(1, 1)


@pytest.mark.parametrize(("shapes", "result"), [([(5, 4), (4,)], (5,)), ([(4,), (4,)], ())])
def test_products_with_a_vector(shapes, result):
    probe = Probe(torch.matmul, *shapes)
    assert probe.tied(0, len(shapes[0]) - 1, 1, 0)
    assert probe.outputs[0].shape == result
    assert len(probe.ledger.labels(probe.outputs[0])) == len(result)


def test_a_contraction_of_two_activations_is_noted():
    assert Probe(lambda a, b: (a * 2) @ (b * 2), (5, 4), (4, 6)).ledger.sites
    assert not Probe(F.linear, (5, 4), (6, 4)).ledger.sites


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (F.conv2d, [(2, 4, 5, 5), (6, 4, 3, 3)]),
        (lambda x, w: F.conv2d(x, w, groups=2), [(2, 4, 5, 5), (6, 2, 3, 3)]),
        (F.conv_transpose2d, [(2, 4, 5, 5), (4, 6, 3, 3)]),
        (F.linear, [(2, 4), (6, 4), (6,)]),
        (torch.bmm, [(3, 5, 4), (3, 4, 6)]),
    ],
)
def test_work_is_counted_as_torch_counts(function, shapes):
    probe = Probe(function, *shapes)
    with FlopCounterMode(display=False) as counter:
        function(*probe.inputs)
    assert sum(work.macs for work in probe.ledger.work) == counter.get_total_flops() // 2


def test_a_product_over_the_width_of_heads_ties_both_sides_channel_by_channel():
    def scores(q, k):
        q, k = (t.view(1, t.shape[1], 3, -1).transpose(1, 2) for t in (q, k))
        return (q * 2) @ (k * 2).mT

    probe = Probe(scores, (1, 5, 12), (1, 7, 12))
    assert probe.tied(0, 2, 1, 2)
    assert len(set(probe.units(probe.labels(0, 2))) - {0}) == 12
    assert len(probe.ledger.sites) == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ((y := x.flatten(2)) @ y.mT @ y).view(x.shape),
        lambda x: ((y := x.flatten(2)) @ (y.mT @ y).softmax(-1)).view(x.shape),
        lambda x: x @ torch.linspace(-1, 1, 64).view(8, 8),
    ],
    ids=["linear attention", "attention over places", "a fixed product"],
)
def test_what_is_left_answers_as_it_did(function):
    check_cut(function)
