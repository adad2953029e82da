"""A part of the zoo, with each decoder and each family of encoders; `make zoo` runs all of it."""

import pytest

from tests.zoo.check import examine
from tests.zoo.networks import DECODERS, ENCODERS, NATIVE, SLOW, VARIANTS, sample

# MAnet's position attention lays channels behind positions and cuts the axis up anew; EdgeNeXt's attention is
# a softmax over channels. Both have to stay.
PINNED_BY_DESIGN = {"manet", "tu-edgenext_xx_small"}


@pytest.mark.parametrize("case", sample(), ids=str)
def test_network_is_cut_as_its_masked_original_and_little_is_pinned(case):
    row = examine(case)
    assert not row.refusal
    assert not row.problems
    assert not row.excess or PINNED_BY_DESIGN & {case.decoder, case.encoder}, row.reason


def test_sample_has_each_decoder_and_variant_and_each_encoder_that_is_quick():
    assert {case.decoder for case in sample()} == set(DECODERS)
    assert {case.variant for case in sample()} == set(VARIANTS)
    assert {case.encoder for case in sample()} == set(ENCODERS) - SLOW
    assert not SLOW & set(NATIVE)
