import torch

from seg_pruning.pruning.criteria import Random
from tests.pruning.groups import MIDDLE, STREAM, group, member


def test_repeats_by_seed_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first = Random(3)(STREAM, {}, {})
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, Random(3)(STREAM, {}, {}))
    assert not torch.equal(first, Random(4)(STREAM, {}, {}))
    assert len(set(first.tolist())) == STREAM.size


def test_groups_are_independent_whatever_their_order() -> None:
    twin = group("twin", STREAM.size, member("twin.weight", 0, STREAM.size))
    alone = Random()(MIDDLE, {}, {})
    assert not torch.equal(Random()(STREAM, {}, {}), Random()(twin, {}, {}))
    assert torch.equal(alone, Random()(MIDDLE, {}, {}))


def test_is_uniform() -> None:
    scores = Random(0)(group("wide", 10_000, member("w", 0, 10_000)), {}, {})
    assert 0 <= scores.min() <= scores.max() < 1
    assert abs(scores.mean().item() - 0.5) < 4 * (1 / 12 / 10_000) ** 0.5
