"""A part of the zoo, with each decoder and each family of encoders; `make zoo` runs all of it."""

import pytest

from tests.zoo.check import examine
from tests.zoo.networks import DECODERS, NATIVE, VARIANTS
from tests.zoo.sample import SLOW, families, family, sample

# MAnet's position attention lays channels behind positions and cuts the axis up anew: they have to stay.
PINNED_BY_DESIGN = {"manet"}


@pytest.mark.parametrize("case", sample(), ids=str)
def test_network_is_cut_as_its_masked_original_and_little_is_pinned(case):
    row = examine(case)
    assert not row.refusal
    assert not row.problems
    assert not row.excess or case.decoder in PINNED_BY_DESIGN, row.reason


def test_sample_has_each_decoder_and_variant_and_each_family_of_encoders_that_has_a_cheap_member():
    plain = [case for case in sample() if case.variant in {"", "small"}]
    assert {case.decoder for case in plain} == set(DECODERS)
    assert {case.variant for case in sample()} == {*VARIANTS, "small"}
    assert sorted(family(case.encoder) for case in plain) == sorted(families() - SLOW)
    assert families() >= SLOW
    assert not SLOW & set(NATIVE)
