"""Labels of an op's output, compared with what the op does to data.

Every dim of every input is labelled afresh. An op that only moves data moves the labels alike: fed with the
labels of one dim as data, its output is the expected label array.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from seg_pruning.surgery.calls import FunctionCalls, Ops
from seg_pruning.surgery.labels import FIXED, components
from seg_pruning.surgery.ledger import Ledger


class Probe:
    """What the rules said about one function of tensors that are labelled along every dim."""

    def __init__(self, function: Callable[..., object], *shapes: tuple[int, ...]) -> None:
        self.function = function
        self.inputs = [torch.rand(shape, dtype=torch.float64) + 0.5 for shape in shapes]
        self.ledger = Ledger()
        for i, tensor in enumerate(self.inputs):
            self.ledger.mint(f"input{i}", tensor)
        calls = FunctionCalls()
        with torch.no_grad(), calls, Ops(self.ledger, calls):
            self.outputs = _listed(function(*self.inputs))
        self.root = components(self.ledger.count, self.ledger.ties)
        pins = [labels for labels, _ in self.ledger.pins] + [np.array([FIXED])]
        self.pinned = np.isin(self.root, self.root[np.concatenate(pins)])

    @property
    def reasons(self) -> str:
        """All reasons of pins."""
        return "; ".join(dict.fromkeys(reason for _, reason in self.ledger.pins))

    def labels(self, i: int, dim: int) -> np.ndarray:
        """The labels that were minted for one dim of input `i`."""
        found = self.ledger.mints[
            [(m.tensor, m.dims) for m in self.ledger.mints].index((f"input{i}", (dim,)))
        ]
        return found.labels.reshape(-1)

    def units(self, labels: np.ndarray) -> np.ndarray:
        """The unit of each label; 0 for all that is pinned."""
        return np.where(self.pinned[labels], FIXED, self.root[labels])

    def free(self, i: int, dim: int) -> bool:
        """Whether channels may leave this dim of input `i`."""
        return not self.pinned[self.labels(i, dim)].any()

    def tied(self, i: int, dim: int, j: int, other: int) -> bool:
        """Whether these two dims are tied index by index."""
        return bool((self.root[self.labels(i, dim)] == self.root[self.labels(j, other)]).all())

    def check_moved(self) -> None:
        """Asserts that labels moved as data moves, or are pinned."""
        for i, tensor in enumerate(self.inputs):
            for dim in range(tensor.ndim):
                if tensor.shape[dim] > 1:
                    self._check_dim(i, dim)

    def _check_dim(self, i: int, dim: int) -> None:
        shape = [-1 if d == dim else 1 for d in range(self.inputs[i].ndim)]
        data = [torch.zeros_like(t) for t in self.inputs]
        labels = torch.from_numpy(self.labels(i, dim).astype(float)).reshape(shape)
        data[i] = labels.expand_as(self.inputs[i]).contiguous()
        for out, moved in zip(self.outputs, _listed(self.function(*data)), strict=True):
            expected = self.units(moved.numpy().astype(np.int64))
            arrays = [np.broadcast_to(self.units(a), out.shape) for a in self.ledger.labels(out)]
            seen = np.isin(expected, self.units(self.labels(i, dim))) & (expected != FIXED)
            assert not seen.any() or any((a[seen] == expected[seen]).all() for a in arrays), (i, dim)


def _listed(outputs: object) -> Sequence[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)  # type: ignore[call-overload]
