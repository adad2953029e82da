"""Whole blocks beside channels of each block: in which order they leave.

Groups whose blocks may leave as a whole shrink in two ways: by a column, the least important channel of each
block, or by a branch, a block of each of the groups. Which is better depends on what has left before. So the
steps of a set are played through: the one leaves whose remaining channels are worth the least on average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Member:
    """One group of a set, as its steps are played through.

    Attributes:
        values: scores, comparable between groups, shape `(columns, branches)`; they never fall down a column.
        price: what a channel saves.
        steps: columns that may leave.
        forced: columns that leave first in any case.
        floor: channels that stay in any case.
    """

    values: Floats
    price: float
    steps: int
    forced: int
    floor: float = 0.0


@dataclass(frozen=True)
class Steps:
    """The steps of one set in their order.

    Attributes:
        movers: which group of the set loses a column; the number of groups where a branch leaves.
        keys: what each step is worth, never falling; `-inf` for forced ones.
        branches: the branches in the order in which they leave.
    """

    movers: Ints
    keys: Floats
    branches: Ints


def worth(scores: npt.ArrayLike, saving: float) -> Floats:
    """Scores for each unit saved; where one is below zero, the more is saved the lower it becomes.

    >>> worth(np.array([2.0, -2.0]), 4.0)
    array([ 0.5, -8. ])
    """
    values = np.asarray(scores, dtype=np.float64)
    return np.where(values < 0, values * saving, values / saving)


def played(members: Sequence[Member], *, price: float, most: int) -> Steps:
    """All steps of a set, always the one of least worth next; ties go by step, then by group.

    Args:
        members: the groups.
        price: what a channel saves that leaves with a branch.
        most: branches that may leave.

    Example:
        >>> even, worthless = np.array([[1.0, 1.0], [3.0, 3.0]]), np.array([[1.0, 0.0], [3.0, 0.1]])
        >>> played([Member(even, 1.0, 1, 0)], price=1.0, most=1).movers
        array([0, 1])
        >>> played([Member(worthless, 1.0, 1, 0)], price=1.0, most=1).movers
        array([1, 0])
    """
    race = _Race(members, price, most)
    steps = [(-np.inf, number) for number, member in enumerate(members) for _ in range(member.forced)]
    for _, number in steps:
        race.remove(number)
    while (found := race.next()) is not None:
        steps.append(found)
        race.remove(found[1])
    keys: Floats = np.array([key for key, _ in steps], dtype=np.float64)
    movers = np.array([number for _, number in steps], dtype=np.int64)
    return Steps(movers, np.maximum.accumulate(keys), np.array(race.left, dtype=np.int64))


class _Race:
    """What is left of a set, and what would leave next."""

    def __init__(self, members: Sequence[Member], price: float, most: int) -> None:
        self.members = members
        self.price = price
        self.most = most
        self.gone = [0] * len(members)
        self.left: list[int] = []
        self._alive = np.ones(members[0].values.shape[1], dtype=bool)
        self._sums: Floats = np.sum([member.values.sum(axis=0) for member in members], axis=0)
        self._length = sum(len(member.values) for member in members)

    def next(self) -> tuple[float, int] | None:
        """The worth and the number of the next step; None where nothing may leave any more."""
        found = [
            (float(worth(m.values[gone][self._alive].mean(), m.price)), gone, number)
            for number, (m, gone) in enumerate(zip(self.members, self.gone, strict=True))
            if gone < m.steps and self._keeps_floor(m, gone + 1, len(self.left))
        ]
        floors = all(map(self._keeps_floor, self.members, self.gone, [len(self.left) + 1] * len(self.gone)))
        if len(self.left) < self.most and floors:
            mean = self._sums[self._worst()] / self._length
            found.append((float(worth(mean, self.price)), len(self.left), len(self.members)))
        return (min(found)[0], min(found)[2]) if found else None

    def remove(self, number: int) -> None:
        """Takes the next column of a group, or the worst branch."""
        if number == len(self.members):
            self.left.append(self._worst())
            self._alive[self.left[-1]] = False
            return
        self._sums = self._sums - self.members[number].values[self.gone[number]]
        self._length -= 1
        self.gone[number] += 1

    def _keeps_floor(self, member: Member, columns: int, branches: int) -> bool:
        """Whether `member` does when so many have left."""
        height, width = member.values.shape
        return bool((height - columns) * (width - branches) >= member.floor)

    def _worst(self) -> int:
        return int(np.argmin(np.where(self._alive, self._sums, np.inf)))
