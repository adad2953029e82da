import pytest
import torch

from seg_pruning.pruning.criteria import L1
from tests.pruning.groups import group, member

GROUP = group("g", 3, member("a", 0, 3), member("b", 0, 2), member("c", 1, 3, "in"))
WEIGHTS = {
    "a": torch.tensor([[1.0], [2.0], [3.0]]),
    "b": torch.tensor([5.0, 1.0]),
    "c": torch.tensor([[1.0, 4.0, 1.0], [1.0, 5.0, 1.0]]),
}


@pytest.mark.parametrize(
    ("reduce", "expected"),
    [("sum", [8.0, 12.0, 5.0]), ("mean", [8 / 3, 4.0, 5 / 2]), ("max", [5.0, 9.0, 3.0])],
)
def test_a_mean_is_over_the_tensors_that_hold_the_channel(reduce: str, expected: list[float]) -> None:
    """Channels 0 to 2 have 1, 2, 3 in the first tensor, 5, 1, none in the second, 2, 9, 2 in the third."""
    assert L1(reduce=reduce)(GROUP, WEIGHTS, {}).tolist() == pytest.approx(expected)  # type: ignore[arg-type]
