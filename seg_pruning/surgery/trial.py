"""Whatever the rules believe, each group is tried before it is offered."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
from torch import Tensor, nn

from seg_pruning.surgery.certificate import certify
from seg_pruning.surgery.cut import Cut, plan_cut
from seg_pruning.surgery.entries import NO_OP
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.graph import ChannelBranches, ChannelGraph, ChannelGroup
from seg_pruning.surgery.grouping import NO_GROUP, Policy
from seg_pruning.surgery.inputs import ExampleInputs, Inputs
from seg_pruning.surgery.labels import LabelArray
from seg_pruning.surgery.note import structure_of
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.structure import Structure
from seg_pruning.surgery.trace import record
from seg_pruning.surgery.trial_values import trial_values
from seg_pruning.surgery.untouched import untouched

_SEED = 20240412


def trace(model: nn.Module, example_inputs: ExampleInputs | Inputs) -> ChannelGraph:
    """The channel graph of `model`: what leaves together, what stays and why. The network is untouched.

    Each group that is offered has been cut, at random and unevenly, on random values, and the result
    equalled the masked original. A group that broke is pinned, and the error is its reason.

    Args:
        model: any module that runs.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments; small ones are faster.

    Raises:
        PruningError: the network cannot be run on `example_inputs`, or runs different ops each time.
    """
    inputs = Inputs.of(example_inputs)
    structure = structure_of(model) or Structure()
    sizes = {attribute: before for attribute, (before, _) in structure.sizes.items()}
    read = partial(record, model, inputs, dense=structure.dense, dense_sizes=sizes)
    graph = ChannelGraph(read())
    if held := _held_by_scale(graph):
        graph = ChannelGraph(read(follows=held))
    with untouched(model):  # around all trials: each shows the next whether its ops depend on a counter
        trial = _Trial(model, inputs, trial_values(model, inputs, graph.trace.ops))
        graph = _tried(graph, trial)
        if standing := _stuck_as_a_whole(graph):
            again = read(follows=held, standing=standing)
            graph = max(graph, _tried(ChannelGraph(again), trial), key=_free)
    return graph


def _free(graph: ChannelGraph) -> int:
    """The number of channels that may leave."""
    return sum(group.size for group in graph.prunable)


def _stuck_as_a_whole(graph: ChannelGraph) -> frozenset[int]:
    """Numbers of the ops from which blocks could leave only as a whole, and cannot.

    Something that is told of each head (a temperature) ties its channels, while the number of heads or the
    width of all of them cannot change. With the heads there to stay, each may still lose width.
    """
    grouping = graph.grouping

    def stuck(rows: LabelArray) -> bool:
        """Whether some line is one unit throughout, and everything in the rows is pinned."""
        units = grouping.root[rows]
        numbers = np.unique(grouping.group[units]).tolist()
        whole = rows.shape[-1] > 1 and (units == units[..., :1]).all(-1).any()
        return bool(whole) and all(n != NO_GROUP and grouping.reasons[n] for n in numbers)

    blocks = (block for block in graph.trace.blocks if block.op != NO_OP and not block.stay)
    return frozenset(block.op for block in blocks if stuck(block.rows))


def _held_by_scale(graph: ChannelGraph) -> frozenset[int]:
    """Calls of fused attention from which nothing could leave, since their scale depends on a width.

    Whole heads leave where they can. Where they cannot, since a residual stream is as wide as all heads
    together, their width may leave, and the cut makes up for the scale.
    """
    grouping = graph.grouping

    def stays(array: LabelArray) -> bool:
        number = int(grouping.group[grouping.root[array.flat[0]]])
        return number == NO_GROUP or bool(grouping.reasons[number])

    return frozenset(n for n, read in enumerate(graph.trace.scales.scaled) if read and all(map(stays, read)))


def _tried(graph: ChannelGraph, trial: "_Trial") -> ChannelGraph:
    """`graph` with all that breaks pinned."""
    while failed := trial.failures(graph, graph.prunable) or trial.failures(
        graph, _some(graph.prunable), seed=_SEED + 1
    ):
        graph = ChannelGraph(graph.trace, _stricter(graph, failed))
    return graph


def _some(groups: Sequence[ChannelGroup]) -> Sequence[ChannelGroup]:
    """About half of the groups: cut alone and in another way, those that are right by chance differ."""
    chosen = np.random.default_rng(_SEED).random(len(groups)) < 0.5
    return [group for group, yes in zip(groups, chosen, strict=True) if yes]


def random_plan(graph: ChannelGraph, groups: Sequence[ChannelGroup] | None = None, *, seed: int = 0) -> Plan:
    """A legal plan that cuts each of `groups` (all prunable ones by default) at its own random ratio.

    Some blocks leave as a whole where they may, and all groups that lose them are chosen.
    """
    rng = np.random.default_rng(seed)
    chosen = graph.prunable if groups is None else groups
    kept = {group.name: _random_kept(group, rng) for group in chosen}
    for branches in graph.branches:
        if branches.rows.keys() <= kept.keys():
            kept |= _without_some(graph, branches, kept, rng)
    return Plan(kept, {group.name: group.size for group in chosen})


def _random_kept(group: ChannelGroup, rng: np.random.Generator) -> tuple[int, ...]:
    width = len(group.rows[0])
    least = 1 if width < 3 else 2  # one channel alone has no variance: that says nothing about the others
    count = int(np.clip(round(width * rng.uniform(0.1, 0.9)), least, max(1, width - 1)))
    return tuple(sorted(int(i) for row in group.rows for i in rng.choice(row, count, replace=False)))


def _without_some(
    graph: ChannelGraph,
    branches: ChannelBranches,
    kept: Mapping[str, tuple[int, ...]],
    rng: np.random.Generator,
) -> dict[str, tuple[int, ...]]:
    """What is left of `kept` when some branches leave as a whole, one of them at least."""
    count = int(np.clip(round(branches.size * rng.uniform(0.3, 0.9)), 1, branches.size - 1))
    gone = rng.choice(branches.size, branches.size - count, replace=False)
    left = {}
    for name, rows in branches.rows.items():
        lost = {i for branch in gone for i in graph[name].rows[rows[branch]]}
        left[name] = tuple(i for i in kept[name] if i not in lost)
    return left


@dataclass(frozen=True)
class _Trial:
    """Cuts on copies, to find the groups that break."""

    model: nn.Module
    inputs: Inputs
    values: dict[str, Tensor]

    def failures(
        self, graph: ChannelGraph, groups: Sequence[ChannelGroup], *, seed: int = _SEED
    ) -> dict[str, str]:
        """The groups that cannot be cut, with the reason."""

        @cache  # by names
        def planned(*names: str) -> Cut | str:
            """The cut of these groups, or why there is none."""
            plan = random_plan(graph, [graph[name] for name in names], seed=seed)
            try:
                return plan_cut(graph, plan)
            except PruningError as error:
                return str(error)

        def unplanned(*names: str) -> str:
            cut = planned(*names)
            return cut if isinstance(cut, str) else ""

        def wrong(*names: str) -> str:
            cut = planned(*names)
            return cut if isinstance(cut, str) else self._wrong(graph, cut)

        bundles = _bundles(graph, groups)
        return _guilty(bundles, unplanned) or _guilty(bundles, wrong)  # the first needs no forward pass

    def _wrong(self, graph: ChannelGraph, cut: Cut) -> str:
        certificate = certify(self.model, graph, cut, self.inputs, self.values)
        if certificate.passed:
            return ""
        return certificate.failure or f"a trial cut changed the output by {certificate.max_error:.1e}"


def _bundles(graph: ChannelGraph, groups: Sequence[ChannelGroup]) -> list[tuple[str, ...]]:
    """The names of `groups`, those side by side that lose whole blocks together: none does so alone."""
    bundle_of: dict[str, tuple[str, ...]] = {group.name: (group.name,) for group in groups}
    for branches in graph.branches:
        together = tuple(name for name in branches.rows if name in bundle_of)
        bundle_of |= dict.fromkeys(together, together)
    return list(dict.fromkeys(bundle_of.values()))


def _guilty(bundles: Sequence[tuple[str, ...]], error_of: Callable[..., str]) -> dict[str, str]:
    """The names of groups with an error, and the error: all at once, halving on failure."""
    names = [name for bundle in bundles for name in bundle]
    if not names or not (error := error_of(*names)):
        return {}
    if len(bundles) == 1:
        return dict.fromkeys(names, error)
    middle = len(bundles) // 2
    found = _guilty(bundles[:middle], error_of) | _guilty(bundles[middle:], error_of)
    return found or dict.fromkeys(names, f"breaks together with other groups: {error}")


def _stricter(graph: ChannelGraph, failed: dict[str, str]) -> Policy:
    """Lets whole blocks of a failed group stay, else ties their columns; one without blocks is pinned."""
    policy = graph.policy
    for name, reason in failed.items():
        labels = graph.units_of(name)
        blocks = graph.grouping.blocks[int(graph.grouping.group[labels[0]])]
        if entries := graph.branch_entries(name):
            policy = replace(policy, refused_branches=policy.refused_branches | entries)
        elif blocks:
            policy = replace(policy, tied_blocks=policy.tied_blocks | set(blocks))
        else:
            policy = replace(policy, pins=(*policy.pins, (labels, f"tried and refused: {reason}")))
    return policy
