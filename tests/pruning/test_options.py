import pytest
import torch

from seg_pruning.pruning.options import Selection


@pytest.mark.parametrize(
    ("device", "dtype", "round_to"),
    [
        ("cpu", torch.float32, 1),
        ("cpu", torch.bfloat16, 1),
        ("cuda:1", torch.float32, 1),
        ("cuda", torch.float16, 8),
        ("cuda", torch.bfloat16, 8),
    ],
)
def test_open_rounding_is_what_pays_on_the_device(device: str, dtype: torch.dtype, round_to: int) -> None:
    assert Selection().resolved(device, dtype) == Selection(round_to=round_to)
    assert Selection().resolved(device, dtype, timed=True).round_to == (8 if device == "cpu" else round_to)
    assert Selection(round_to=3).resolved(device, dtype).round_to == 3
