"""The order in which channels leave, with plain lists and nothing of the code under test but the groups."""

import math

from seg_pruning.surgery.graph import ChannelGraph
from tests.pruning.selecting import Scores

Step = tuple[str, dict[str, list[int]]]
"""Whose step it is, and the channels that leave with it, by group."""

BRANCH = "branch"


def by_hand(graph: ChannelGraph, scores: Scores, scope: str) -> list[Step]:
    """All steps until each group holds one channel, of each block of which one is left."""
    together = [tuple(branches.rows) for branches in graph.branches] if scope == "global" else []
    alone = [(group.name,) for group in graph.prunable if not any(group.name in names for names in together)]
    numbers = {group.name: at for at, group in enumerate(graph.prunable)}
    steps = []
    for at, names in enumerate([*together, *alone], start=len(numbers)):
        left, last = Left(graph, scores, scope, names), (-math.inf, 0)
        while found := left.steps():
            key, rank, name, channels = min(found, key=lambda step: step[:3])
            left.remove(name, channels)
            last = max(last, (key, max(rank, last[1])))  # what leaves later is worth as much at least
            steps.append((*last, numbers.get(name, at), name, channels))
    return [(name, channels) for *_, name, channels in sorted(steps, key=lambda step: step[:3])]


class Left:
    """What is left of groups that lose whole blocks together."""

    def __init__(self, graph: ChannelGraph, scores: Scores, scope: str, names: tuple[str, ...]) -> None:
        self.local = scope == "local"
        self.scores = {name: scores[name].tolist() for name in names}
        self.columns = {name: self._columns(graph, name) for name in names}
        self.widths = {name: len(columns) for name, columns in self.columns.items()}
        self.scales = dict.fromkeys(names, 1.0)
        means = {name: [self.mean({name: column}) for column in self.columns[name]] for name in names}
        self.scales = {name: sum(map(abs, found)) / len(found) for name, found in means.items()}
        self.blocks = list(range(len(graph[names[0]].rows)))
        self.count = len(self.blocks) if len(names) > 1 else 0

    def _columns(self, graph: ChannelGraph, name: str) -> list[list[int]]:
        values = self.scores[name]
        rows = [sorted(row, key=lambda i: (values[i], i)) for row in graph[name].rows]
        return [list(column) for column in zip(*rows, strict=True)]

    def mean(self, channels: dict[str, list[int]]) -> float:
        """The mean score of channels, each in units of its group."""
        values = [self.scores[name][i] / self.scales[name] for name, held in channels.items() for i in held]
        return sum(values) / len(values)

    def steps(self) -> list[tuple[float, int, str, dict[str, list[int]]]]:
        """What could leave now: its key, how many alike have left, whose it is, the channels."""
        found = []
        for name, columns in self.columns.items():
            if len(columns) > 1:
                gone, column = self.widths[name] - len(columns), {name: [columns[0][b] for b in self.blocks]}
                key = (gone + 1) / self.widths[name] if self.local else self.mean(column)
                found.append((key, gone, name, column))
        if self.count and len(self.blocks) > 1:
            branches = [self._branch(block) for block in self.blocks]
            worst = min(branches, key=self.mean)
            found.append((self.mean(worst), self.count - len(self.blocks), BRANCH, worst))
        return found

    def _branch(self, block: int) -> dict[str, list[int]]:
        return {name: [column[block] for column in columns] for name, columns in self.columns.items()}

    def remove(self, name: str, channels: dict[str, list[int]]) -> None:
        """Takes a step."""
        if name == BRANCH:
            self.blocks = [block for block in self.blocks if self._branch(block) != channels]
        else:
            self.columns[name].pop(0)
