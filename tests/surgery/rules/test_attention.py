import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from seg_pruning.surgery.calls import FunctionCalls
from seg_pruning.surgery.ledger import Ledger
from seg_pruning.surgery.scales import Scales
from tests.surgery.rules import probe
from tests.surgery.rules.probe import Probe

attention = F.scaled_dot_product_attention
SHAPES = (1, 3, 5, 4), (1, 3, 7, 4), (1, 3, 7, 4)


def test_heads_meet_and_values_pass():
    found = Probe(attention, (1, 3, 5, 4), (1, 3, 7, 4), (1, 3, 7, 4))
    assert found.tied(0, 1, 1, 1)
    assert found.tied(0, 1, 2, 1)
    assert (found.ledger.vector(found.outputs[0], 3) == found.labels(2, 3)).all()
    assert found.free(2, 3)


@pytest.fixture
def called(monkeypatch):
    """A probe that sees how Python calls attention: whether it gives a scale."""

    def make(function, *shapes, follows=()):
        ledger = Ledger(scales=Scales(frozenset(follows)))
        monkeypatch.setattr(probe, "Ledger", lambda: ledger)
        monkeypatch.setattr(probe, "FunctionCalls", lambda: FunctionCalls(ledger))
        return Probe(function, *shapes)

    return make


def test_the_width_of_queries_is_fixed_by_the_scale(called):
    found = called(attention, *SHAPES)
    assert not found.free(0, 3)
    assert not found.free(1, 3)
    assert "takes its scale" in found.reasons


@pytest.mark.parametrize(
    ("function", "follows"),
    [
        (attention, {0}),
        (lambda q, k, v: attention(q, k, v, scale=0.5), ()),
        (lambda q, k, v: attention(q, k, v, None, 0.0, False, scale=0.5), ()),
    ],
    ids=["follows", "given", "given last"],
)
def test_the_width_leaves_where_the_scale_is_given_or_follows(called, function, follows):
    found = called(function, *SHAPES, follows=follows)
    assert found.free(0, 3)
    assert found.tied(0, 3, 1, 3)
    assert len(found.ledger.sites) == 1


def test_of_two_calls_only_that_one_follows_which_is_named(called):
    def two(q, k, v, r, s):
        return attention(q, k, v), attention(r, s, v)

    found = called(two, *SHAPES, (1, 3, 5, 4), (1, 3, 7, 4), follows={1})
    assert [found.free(i, 3) for i in (0, 1, 3, 4)] == [False, False, True, True]


def heads_of(q, k, v, **options):
    """Attention of three heads whose width is left to torch, as it is between two linear layers."""
    made = attention(*(t.view(1, t.shape[1], 3, -1).transpose(1, 2) for t in (q, k, v)), **options)
    return made.transpose(1, 2).reshape(1, 5, -1)


def test_whole_heads_leave_where_the_scale_is_taken_from_their_width(called):
    def whole(q, k, v):
        made = attention(*(t.view(1, t.shape[1], -1, 4).transpose(1, 2) for t in (q, k, v)))
        return made.transpose(1, 2).reshape(1, 5, -1)

    found = called(whole, (1, 5, 12), (1, 7, 12), (1, 7, 12))
    q, k, v = (found.units(found.labels(i, 2)).reshape(3, 4) for i in range(3))
    assert (q == q[:, :1]).all()
    assert len(set(q[:, 0]) - {0}) == 3
    assert (q == k).all()
    assert (q == v).all()
    assert (found.units(found.ledger.vector(found.outputs[0], 2)) == q.reshape(-1)).all()


def test_single_channels_of_each_head_leave_where_the_scale_is_given(called):
    found = called(lambda q, k, v: heads_of(q, k, v, scale=0.5), (1, 5, 12), (1, 7, 12), (1, 7, 12))
    q, k, v = (found.units(found.labels(i, 2)) for i in range(3))
    assert (q == k).all()
    assert len(set(q) - {0}) == len(set(v) - {0}) == 12
    assert not set(q) & set(v)


@pytest.mark.parametrize("width", [4, 6], ids=["one kernel", "single ops"])
def test_channels_along_the_lengths_pass_from_queries_and_are_weighed_with_values(called, width):
    shapes = (1, 3, 5, 4), (1, 3, 7, 4), (1, 3, 7, width)
    found = called(lambda q, k, v: attention(q, k, v, scale=0.5), *shapes)
    assert all(found.free(i, 2) for i in range(3))
    assert found.tied(1, 2, 2, 2)
    assert [found.ledger.vector(found.outputs[0], i) is not None for i in (1, 2, 3)] == [True] * 3
    assert (found.ledger.vector(found.outputs[0], 2) == found.labels(0, 2)).all()
    over = [set(found.units(a).reshape(-1)) for site in found.ledger.sites.values() for a in site.over]
    assert over == [set(found.units(found.labels(1, 2)))]


@pytest.mark.parametrize("options", [{"is_causal": True}, {"attn_mask": torch.zeros(5, 5).double()}])
def test_lengths_stay_where_a_mask_is_laid_over_them(called, options):
    found = called(lambda q, k, v: attention(q, k, v, scale=0.5, **options), *[(2, 3, 5, 4)] * 3)
    assert not any(found.free(i, 2) for i in range(3))


def test_a_mask_leaves_with_its_heads_and_its_places_are_pinned():
    found = Probe(lambda q, k, v, m: attention(q, k, v, attn_mask=m), *[(2, 3, 5, 4)] * 3, (2, 3, 5, 5))
    assert [found.free(3, d) for d in range(4)] == [False, True, False, False]
    assert found.tied(3, 1, 0, 1)
    shared = Probe(lambda q, k, v, m: attention(q, k, v, attn_mask=m), *[(2, 3, 5, 4)] * 3, (5, 5))
    assert shared.free(0, 1)
    assert not any(shared.free(3, d) for d in range(2))


def test_work_is_counted_as_torch_counts():
    shapes = (2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4)
    found = Probe(attention, *shapes)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        attention(*found.inputs)
    assert sum(work.macs for work in found.ledger.work) == counter.get_total_flops() // 2
