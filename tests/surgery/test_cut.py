import pytest
import torch

from seg_pruning.surgery.cut import kept_shape, take
from seg_pruning.surgery.errors import PruningError


def test_blocks_may_keep_different_columns():
    mask = torch.tensor([[1, 0, 1], [0, 1, 1], [0, 0, 0]], dtype=torch.bool)
    assert take(torch.arange(9).reshape(3, 3), mask).tolist() == [[0, 2], [4, 5]]


def test_trailing_dims_stay_whole():
    mask = torch.tensor([[True, False], [False, True]])[:, :, None, None].expand(2, 2, 3, 3)
    assert kept_shape(mask) == (2, 1, 3, 3)


@pytest.mark.parametrize("rows", [[[1, 1], [1, 0]], [[1, 1, 0], [0, 0, 1]]])
def test_a_ragged_cut_is_refused(rows):
    with pytest.raises(PruningError, match="ragged tensor"):
        kept_shape(torch.tensor(rows, dtype=torch.bool))


def test_the_memory_format_stays():
    tensor = torch.randn(4, 6, 3, 3).contiguous(memory_format=torch.channels_last)
    mask = torch.ones(4, 6, 3, 3, dtype=torch.bool)
    mask[1] = False
    kept = take(tensor, mask)
    assert kept.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(kept, tensor[[0, 2, 3]])
