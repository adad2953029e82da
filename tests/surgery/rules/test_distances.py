import pytest
import torch

from tests.surgery.rules.probe import Probe
from tests.surgery.rules.sandwich import check_cut

WORDS = torch.rand(5, 12, generator=torch.Generator().manual_seed(0))


def to_itself(x, p=2.0):
    flat = x.flatten(2).transpose(1, 2)
    return torch.cdist(flat, flat[:, ::8] + 1.0, p=p).transpose(1, 2).unflatten(2, x.shape[2:])


@pytest.mark.parametrize("p", [2.0, 1.0])
def test_without_some_features_it_answers_as_it_must(p):
    check_cut(lambda x: to_itself(x, p))


def test_features_meet_and_rows_pass():
    probe = Probe(lambda a, b: torch.cdist(a, b), (2, 4, 6), (2, 5, 6))
    assert probe.tied(0, 2, 1, 2)
    assert probe.tied(0, 0, 1, 0)
    assert (probe.ledger.vector(probe.outputs[0], 1) == probe.labels(0, 1)).all()
    assert (probe.ledger.vector(probe.outputs[0], 2) == probe.labels(1, 1)).all()
    assert len(probe.ledger.sites) == 1


def test_features_that_are_compared_with_fixed_words_are_pinned():
    assert not Probe(lambda a: torch.cdist(a, WORDS.double()), (4, 12)).free(0, 1)


def test_vdot_ties():
    probe = Probe(torch.vdot, (6,), (6,))
    assert probe.tied(0, 0, 1, 0)
    assert probe.free(0, 0)
    assert len(probe.ledger.sites) == 1
