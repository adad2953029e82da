import pytest
import torch

from seg_pruning.surgery.passes import repeatable


def newer() -> list[str]:
    """The switches of torch 2.9 and later."""
    cudnn, cuda, cpu = torch.backends.cudnn, torch.backends.cuda, torch.backends.mkldnn
    return [each.fp32_precision for each in (cudnn.conv, cudnn.rnn, cuda.matmul, cpu.conv, cpu.matmul)]


def precision() -> list[object]:
    older = [torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32]
    return [torch.get_float32_matmul_precision(), *older, *newer()]


@pytest.mark.parametrize("setting", ["highest", "high", "medium"])
def test_float32_is_float32_within_and_what_it_was_afterwards(setting):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(setting)
        found = precision()
        with repeatable():
            assert set(newer()) == {"ieee"}
        assert precision() == found
    finally:
        torch.set_float32_matmul_precision(before)
