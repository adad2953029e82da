"""Parameters, MACs and memory of any plan, computed from numbers of kept channels; nothing is cut.

Where whole blocks leave, the numbers of those that stay are needed too: `kept` is a vector of the kept
channels of each group, and behind them the kept branches of each set of branches. Where these are left out
all branches are kept.
"""

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
    """An amount of the dense network that falls with the product of the kept shares of some label arrays.

    Attributes:
        dense: of the dense network.
        shares: of the label arrays.
        repeated: sets of branches that several of the arrays count along one dim: they are to count once.
    """

    dense: int
    shares: tuple[Share, ...]
    repeated: tuple[int, ...] = ()


@dataclass(frozen=True)
class Held:
    """Bytes that are held from op number `born` until before op number `died`, or to the end."""

    bytes: Amount
    born: int
    died: int | None = None


class CostModel:
    """Params, MACs and memory as functions of how many channels each group keeps.

    Exact, since every tensor is cut to a rectangle: its size is a product of kept shares. Only where a block
    is made of channels of several tensors, such as a group of a convolution that reads a concatenation, do
    these lose more or less with the choice of channels: then it is what they lose on average.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        params: Sequence[Amount],
        macs: Sequence[Amount],
        held: Sequence[Held] = (),
        branches: Sequence[int] = (),
    ) -> None:
        self.names = tuple(names)
        self._params = Table(params, len(self.names), branches)
        self._macs = Table(macs, len(self.names), branches)
        self._bytes = Table([entry.bytes for entry in held], len(self.names), branches)
        self._living = _living(held)

    def params(self, kept: Vector) -> int:
        """Number of parameters when group `i` keeps `kept[i]` channels."""
        return self._params.total(kept)

    def macs(self, kept: Vector) -> int:
        """MACs of one pass of the example input when group `i` keeps `kept[i]` channels."""
        return self._macs.total(kept)

    def memory(self, kept: Vector) -> int:
        """The most bytes of activations that live at once in one pass of the example input.

        Counted are the storages that ops make, from the op that makes them until they are released. Inputs,
        parameters, buffers, what a kernel takes for itself, and rounding up by an allocator are not.
        """
        return round(float((self._living @ self._bytes.each(kept)).max(initial=0.0)))

    def written(self, kept: Vector) -> int:
        """The bytes of all storages that ops make in one pass, one after another."""
        return self._bytes.total(kept)


class Table:
    """Amounts as arrays: `dense[r] * prod_k (fixed[r, k] + times[r, k] @ kept)`.

    That is divided by the kept share of the branches that it counts repeatedly.
    """

    def __init__(self, amounts: Sequence[Amount], groups: int, branches: Sequence[int] = ()) -> None:
        depth = max((len(amount.shares) for amount in amounts), default=0)
        self.dense = np.array([amount.dense for amount in amounts], dtype=np.float64)
        self.fixed = np.ones((depth, len(amounts)))
        self.times = np.zeros((depth, len(amounts), groups))
        for row, amount in enumerate(amounts):
            for k, share in enumerate(amount.shares):
                self.fixed[k, row] = share.fixed / share.size
                for group, times in share.times.items():
                    self.times[k, row, group] = times / share.size
        self._branches = np.array(branches, dtype=np.float64)
        self._repeated = np.zeros((len(amounts), len(branches)))
        for row, amount in enumerate(amounts):
            for number in amount.repeated:
                self._repeated[row, number] += 1

    def __len__(self) -> int:
        return len(self.dense)

    def each(self, kept: Vector) -> Vector:
        """Each amount when group `i` keeps `kept[i]` channels."""
        channels, branches = np.split(np.asarray(kept, dtype=np.float64), [self.times.shape[2]])
        amounts = self.dense * np.prod(self.fixed + self.times @ channels, axis=0)
        if len(branches) and (branches < self._branches).any():
            amounts = amounts * np.prod((self._branches / branches) ** self._repeated, axis=1)
        return np.asarray(amounts)

    def total(self, kept: Vector) -> int:
        """Their sum."""
        return round(float(self.each(kept).sum()))


def _living(held: Sequence[Held]) -> Vector:
    """Which entries live at the moments that can be the worst, shape `(moments, entries)`.

    Memory is largest just after something was made and before anything is released.
    """
    rows: list[npt.NDArray[np.bool_]] = []
    born = np.array([entry.born for entry in held], dtype=np.int64)
    died = np.array([_NEVER if entry.died is None else entry.died for entry in held], dtype=np.int64)
    for now in np.unique(born):
        row = (born <= now) & (now < died)
        if rows and not (rows[-1] & ~row).any():
            rows.pop()
        rows.append(row)
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(held))


_NEVER = np.iinfo(np.int64).max
