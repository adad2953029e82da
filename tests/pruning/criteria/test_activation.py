import pytest
import torch

from seg_pruning.pruning.criteria import Activation
from seg_pruning.surgery.errors import PruningError
from tests.pruning.groups import STREAM

OUTPUT = torch.tensor([[[-3.0, 1.0], [0.0, 0.0]], [[2.0, 2.0], [-1.0, 5.0]]])


@pytest.mark.parametrize(
    ("statistic", "expected"), [("mean", [[2.0, 0.0], [2.0, 3.0]]), ("apoz", [[0.5, 0.0], [1.0, 0.5]])]
)
def test_measures_each_sample_and_channel(statistic: str, expected: list[list[float]]) -> None:
    assert Activation(statistic=statistic).measure(OUTPUT, None).tolist() == expected  # type: ignore[arg-type]


def test_weights_are_not_enough() -> None:
    assert Activation().needs == "pass"
    with pytest.raises(PruningError, match="call `score` with `data`"):
        Activation()(STREAM, {}, {})
    with pytest.raises(PruningError, match=r"one of \('mean', 'apoz'\), but got 'median'"):
        Activation(statistic="median")  # type: ignore[arg-type]
