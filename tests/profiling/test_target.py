from pathlib import Path
from typing import Any

import pytest
import torch

from seg_pruning.profiling import Target
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import Inputs


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"threads": 0}, "expected threads to be a whole number of 1 or more, but got 0"),
        ({"batch": 1.5}, "expected batch to be a whole number"),
        ({"batch": True}, "expected batch to be a whole number"),
        ({"dtype": "float64"}, r"expected dtype to be one of \('float32', 'bfloat16', 'float16'\)"),
    ],
)
def test_what_is_no_target_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(PruningError, match=message):
        Target(**wrong)


def test_inputs_are_brought_to_the_batch_and_the_dtype() -> None:
    image = torch.arange(2.0 * 3 * 4 * 4).reshape(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    found = Target(batch=3, dtype="bfloat16").inputs(Inputs.of({"x": image, "scale": torch.tensor(2)}))
    made, scale = found.tensors
    assert torch.equal(made, image[[0, 1, 0]].bfloat16())
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert (scale.dtype, scale.dim()) == (torch.int64, 0)


def test_tables_lie_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Target().folder == tmp_path / "seg_pruning" / "latency"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Target().folder == tmp_path / ".cache" / "seg_pruning" / "latency"
    assert Target(cache="here").folder == Path("here")
