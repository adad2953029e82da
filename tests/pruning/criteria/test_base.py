import pytest
import torch

from seg_pruning.pruning import criteria
from seg_pruning.pruning.criteria import L1, Criterion
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.graph import Member
from tests.pruning.groups import STREAM, group, member


@pytest.mark.parametrize(("name", "kind"), list(criteria.CRITERIA.items()))
def test_get_finds_by_name_and_passes_instances_through(name: str, kind: type[Criterion]) -> None:
    found = criteria.get(name)
    assert type(found) is kind
    assert criteria.get(found) is found


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(
        PruningError, match=r"'Tailor': choose one of random, l1, l2, taylor, .*; did you mean 'taylor'"
    ):
        criteria.get("Tailor")


def test_an_unknown_choice_of_members_is_refused() -> None:
    with pytest.raises(PruningError, match="'in'"):
        L1(members="in")  # type: ignore[arg-type]


def test_buffers_never_count_and_consumers_only_if_asked() -> None:
    everything = [m.tensor for m in L1().counted(STREAM)]
    assert everything == [m.tensor for m in STREAM.members if "running" not in m.tensor]
    assert [m.tensor for m in L1(members="out").counted(STREAM)] == everything[:5]


def test_an_element_that_leaves_twice_counts_once() -> None:
    weights = {"w": torch.tensor([[1.0, 10.0], [100.0, 1000.0]])}
    square = group("w", 2, member("w", 0, 2), member("w", 1, 2, "in"))
    assert L1()(square, weights, {}).tolist() == [111.0, 1110.0]
    assert L1(members="out")(square, weights, {}).tolist() == [11.0, 1100.0]


def test_units_over_two_dims_and_foreign_indices() -> None:
    """A grouped convolution's input side: the unit depends on the block and the position in it."""
    values = torch.arange(12.0).reshape(2, 2, 3)
    units = torch.tensor([[0, -1], [1, 0]])
    blocks = group("g", 2, Member("w", (0, 1), units, "in", True))
    expected = [values[0, 0].sum() + values[1, 1].sum(), values[1, 0].sum()]
    assert L1()(blocks, {"w": values}, {}).tolist() == [float(v) for v in expected]


def test_low_precision_is_summed_in_float32() -> None:
    """4096 ones and a half: bfloat16 would stop counting at 256."""
    weights = {"w": torch.ones(1, 4096, dtype=torch.bfloat16)}
    scores = L1()(group("w", 1, member("w", 0, 1)), weights, {})
    assert scores.dtype is torch.float32
    assert scores.item() == 4096
