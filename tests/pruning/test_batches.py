from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seg_pruning.pruning.batches import read_batches
from seg_pruning.surgery.errors import PruningError

X, Y = torch.arange(6.0).reshape(3, 2), torch.arange(3)


class One(nn.Module):
    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return x * scale


class Two(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


@pytest.mark.parametrize(
    ("net", "item", "args"),
    [
        (One(), X, (X,)),
        (One(), (X, Y), (X,)),
        (One(), [X, Y], (X,)),
        (Two(), (X, Y), (X, Y)),
        (Two(), [(X, Y), Y], (X, Y)),
        (Two(), ((X, Y), Y), (X, Y)),
        (One(), (X,), (X,)),
    ],
)
def test_without_a_loss_a_target_may_be_there_or_not(
    net: nn.Module, item: Any, args: tuple[Tensor, ...]
) -> None:
    [batch] = read_batches([item], net, paired=False)
    assert len(batch.inputs.args) == len(args)
    assert all(torch.equal(a, b) for a, b in zip(batch.inputs.args, args, strict=True))


def test_pairs_keep_their_target_and_samples_are_counted() -> None:
    data = [(X, {"mask": Y}), ({"x": X[:2]}, None)]
    first, second = read_batches(data, One(), paired=True)
    assert torch.equal(first.target["mask"], Y)  # type: ignore[index]
    assert (first.first, first.size, second.first, second.size) == (0, 3, 3, 2)
    assert torch.equal(second.inputs.kwargs["x"], X[:2])
    with pytest.raises(PruningError, match="not Tensor: pair them"):
        list(read_batches([X], One(), paired=True))


def test_single_samples() -> None:
    scale = torch.tensor(2.0)
    [batch] = read_batches([((X, scale), {"mask": Y})], One(), paired=True)
    samples = list(batch.samples)
    assert [sample.first for sample in samples] == [0, 1, 2]
    for n, sample in enumerate(samples):
        assert sample.size == 1
        assert torch.equal(sample.inputs.args[0], X[n : n + 1])
        assert sample.inputs.args[1] == scale
        assert torch.equal(sample.target["mask"], Y[n : n + 1])  # type: ignore[index]
