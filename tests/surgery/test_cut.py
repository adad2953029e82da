"""What a mask takes from a tensor, compared with loops over lists."""

import itertools
import random

import numpy as np
import pytest
import torch

from seg_pruning.surgery.cut import Cut, kept_shape, put, take
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.plan import Plan


def ragged(order, seed):
    """A tensor, a mask and what it keeps, with the dims in `order`.

    In the order (0, 1, 2, 3) the dims are: rows, some of which leave; columns, of which each row keeps its
    own; the same again; and a dim of which the same leave everywhere.
    """
    rng = random.Random(seed)
    sizes, counts = (5, 4, 6, 3), (3, 2, 4, 2)
    rows, last = sorted(rng.sample(range(5), 3)), sorted(rng.sample(range(3), 2))
    columns, more = ({r: sorted(rng.sample(range(sizes[d]), counts[d])) for r in rows} for d in (1, 2))
    tensor = torch.arange(5 * 4 * 6 * 3).reshape(sizes)
    mask = torch.zeros(sizes, dtype=torch.bool)
    kept = []
    for r in rows:
        for a, b, c in itertools.product(columns[r], more[r], last):
            mask[r, a, b, c] = True
            kept.append(int(tensor[r, a, b, c]))
    return (
        tensor.permute(order).contiguous(),
        mask.permute(order),
        torch.tensor(kept).reshape(counts).permute(order),
    )


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_each_line_keeps_its_own_in_the_order_in_which_they_stood(order):
    tensor, mask, expected = ragged(order, seed=sum(10**i * d for i, d in enumerate(order)))
    assert kept_shape(mask) == tuple(expected.shape)
    kept = take(tensor, mask)
    assert torch.equal(kept, expected)
    assert kept.is_contiguous()
    back = put(torch.full_like(tensor, -1), mask, kept)
    assert torch.equal(back, torch.where(mask, tensor, -1))


@pytest.mark.parametrize("turned", [False, True], ids=["columns of each row", "rows of each column"])
@pytest.mark.parametrize("leaving", [(), (1,)], ids=["no line leaves", "a line leaves"])
def test_lines_keep_different_indices(turned, leaving):
    chosen = [[] if line in leaving else found for line, found in enumerate(([0, 3], [1, 3], [2, 3], [0, 3]))]
    tensor = np.arange(16).reshape(4, 4)
    mask = np.zeros((4, 4), dtype=bool)
    for line, found in enumerate(chosen):
        mask[line, found] = True
    expected = [[int(tensor[line, i]) for i in found] for line, found in enumerate(chosen) if found]
    a, m, e = (torch.as_tensor(x) for x in (tensor, mask, np.array(expected)))
    if turned:
        a, m, e = a.T, m.T, e.T
    assert torch.equal(take(a, m), e)
    assert torch.equal(put(torch.zeros_like(a), m, take(a, m)), a * m)


@pytest.mark.parametrize("repeated", [1, 2, 3])
@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5], ids=str)
def test_a_mask_that_repeats_itself_says_the_same_as_one_written_out(order, repeated):
    """Each line of the third dim keeps its own of the fourth; nothing leaves the dims that repeat."""
    found = torch.tensor([[1, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 0]], dtype=torch.bool)
    once = {1: found.expand(5, 1, 3, 4), 2: found.expand(1, 1, 3, 4), 3: found[:1].expand(1, 1, 1, 4)}[
        repeated
    ]
    view = once.clone().expand(5, 2, 3, 4).permute(order)
    written = view.contiguous().clone()
    assert view.stride().count(0) == repeated
    assert written.stride().count(0) == 0
    tensor = torch.arange(120).reshape(5, 2, 3, 4).permute(order)
    assert kept_shape(view) == kept_shape(written)
    assert torch.equal(take(tensor, view), take(tensor, written))
    zeros = torch.zeros(5, 2, 3, 4, dtype=tensor.dtype).permute(order)
    assert torch.equal(put(zeros, view, take(tensor, view)), tensor * written)


@pytest.mark.parametrize("rows", [[[1, 1], [1, 0]], [[1, 1, 1], [1, 0, 0], [0, 1, 0]]])
def test_a_ragged_cut_is_refused(rows):
    mask = torch.tensor(rows, dtype=torch.bool)
    with pytest.raises(PruningError, match="ragged tensor"):
        kept_shape(mask)
    with pytest.raises(PruningError, match="ragged tensor"):
        take(torch.zeros(mask.shape), mask)


@pytest.mark.parametrize(
    ("shape", "last"), [((4, 6, 3, 3), torch.channels_last), ((4, 6, 3, 3, 3), torch.channels_last_3d)]
)
def test_the_memory_format_stays(shape, last):
    tensor = torch.randn(shape).contiguous(memory_format=last)
    mask = torch.ones(shape, dtype=torch.bool)
    mask[1] = False
    kept = take(tensor, mask)
    assert kept.is_contiguous(memory_format=last)
    assert torch.equal(kept, tensor[[0, 2, 3]])


def test_what_is_taken_is_a_copy():
    tensor = torch.arange(6.0).reshape(2, 3)
    for mask in (torch.ones(2, 3, dtype=torch.bool), torch.tensor([[True, False, True]] * 2)):
        take(tensor, mask).zero_()
    assert tensor.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_of_a_scaled_parameter_the_rows_that_stay_are_scaled_and_their_gradient_the_other_way():
    mask = torch.tensor([[True], [False], [True]]).expand(3, 2)
    cut = Cut(Plan({}, {}), {"q": mask, "k": mask}, {}, (), {"q": torch.tensor([[2.0], [3.0], [4.0]])})
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert cut.tensor("q", weight).tolist() == [[2, 4], [20, 24]]
    assert cut.tensor("q", weight, gradient=True).tolist() == [[0.5, 1], [1.25, 1.5]]
    assert cut.tensor("k", weight).tolist() == [[1, 2], [5, 6]]
    assert cut.tensor("head", weight) is weight
