"""Parameters and MACs of any plan, computed from the numbers of kept channels without cutting anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Share:
    """The kept part of one label array: `(fixed + sum of times * kept) / size`."""

    fixed: int
    times: Mapping[int, float]
    size: int


@dataclass(frozen=True)
class Amount:
    """An amount of the dense network that falls with the product of the kept shares of some label arrays."""

    dense: int
    shares: tuple[Share, ...]


class CostModel:
    """Params and MACs as functions of how many channels each group keeps.

    Exact: every tensor is cut to a rectangle, so that its size is a product of kept shares.
    """

    def __init__(self, names: Sequence[str], *, params: Sequence[Amount], macs: Sequence[Amount]) -> None:
        self.names = tuple(names)
        self._params = _Table(params, len(self.names))
        self._macs = _Table(macs, len(self.names))

    def params(self, kept: Vector) -> int:
        """Number of parameters when group `i` keeps `kept[i]` channels."""
        return self._params.total(kept)

    def macs(self, kept: Vector) -> int:
        """MACs of one pass of the example input when group `i` keeps `kept[i]` channels."""
        return self._macs.total(kept)


class _Table:
    """Amounts as arrays: `dense[r] * prod_k (fixed[r, k] + times[r, k] @ kept)`."""

    def __init__(self, amounts: Sequence[Amount], groups: int) -> None:
        depth = max((len(amount.shares) for amount in amounts), default=0)
        self.dense = np.array([amount.dense for amount in amounts], dtype=np.float64)
        self.fixed = np.ones((depth, len(amounts)))
        self.times = np.zeros((depth, len(amounts), groups))
        for row, amount in enumerate(amounts):
            for k, share in enumerate(amount.shares):
                self.fixed[k, row] = share.fixed / share.size
                for group, times in share.times.items():
                    self.times[k, row, group] = times / share.size

    def total(self, kept: Vector) -> int:
        shares = self.fixed + self.times @ np.asarray(kept, dtype=np.float64)
        return round(float(self.dense @ np.prod(shares, axis=0)))
