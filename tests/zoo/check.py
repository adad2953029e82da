"""One network of the zoo: traced, cut at random, compared with its masked original."""

import copy
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.certificate import TOLERANCE, certify, difference
from seg_pruning.surgery.cut import plan_cut
from seg_pruning.surgery.graph import ChannelGraph
from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace
from tests.surgery.oracle import answers, masks_of, without_branches
from tests.zoo.masked import cannot_be_masked, masked_network
from tests.zoo.networks import PLAIN_CNN, Case, Network, RefusalError, build

PLAIN_LIMIT = 0.02
LIMIT = 0.15

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """What was found about a case.

    Attributes:
        side: height and width of the images.
        groups: number of groups that can be cut, and of all.
        pinned: share of the parameters that no plan can remove; of those that run.
        reason: the reason that pins most of them.
        error: the certificate's largest error, relative to the output.
        oracle: the same, by the masked original that the tests build; None where they cannot.
        seconds: for trace, plan, cut and certificate.
        forwards: the same in forward passes on the same images.
        problems: what was cut wrongly; none where all is well.
        excess: what is pinned beyond the limit, in words.
        refusal: smp's own reason not to build or run it.
    """

    side: int = 0
    groups: tuple[int, int] = (0, 0)
    pinned: float = 0.0
    reason: str = ""
    error: float = 0.0
    oracle: float | None = None
    seconds: float = 0.0
    forwards: float = 0.0
    problems: tuple[str, ...] = ()
    excess: str = ""
    refusal: str = ""


def examine(case: Case) -> Row:
    """Builds, traces, cuts and compares `case`."""
    try:
        network = build(case)
    except RefusalError as refused:
        return Row(refusal=str(refused))
    return examine_network(case, network)


def examine_network(case: Case, network: Network) -> Row:
    """Traces, cuts and compares a network that runs."""
    model, images = network.model, network.images
    forward_s = statistics.median(timed(lambda: answers(model, images))[1] for _ in range(3))
    graph, trace_s = timed(lambda: trace(model, images))
    plan = uneven_plan(graph, seed=7)
    (error, failure), cut_s = timed(lambda: certified(model, graph, plan, images))
    pinned, reason = pinned_share(graph)
    untouched = all(p.shape == graph.trace.shapes[name] for name, p in model.named_parameters())
    oracle = problem = None
    if untouched and not failure and not cannot_be_masked(case):
        oracle, problem = compared(network, graph, plan)
    limit = PLAIN_LIMIT if case.encoder in PLAIN_CNN else LIMIT
    problems = (
        failure or (f"the certificate's error is {error:.0e}" if not error <= TOLERANCE else ""),
        problem or "",
        "" if untouched else "the certificate has changed the network",
        ", ".join(sorted({why for _, why in graph.trace.pins if why.endswith("has no rule")})),
    )
    seconds = trace_s + cut_s
    return Row(
        side=images.shape[-1],
        groups=(len(graph.prunable), len(graph.groups)),
        pinned=pinned,
        reason=reason,
        error=error,
        oracle=oracle,
        seconds=seconds,
        forwards=seconds / forward_s,
        problems=tuple(filter(None, problems)),
        excess=f"{pinned:.1%} of the parameters are pinned, more than {limit:.0%}" if pinned > limit else "",
    )


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What `work` gives, and the seconds that it took."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def uneven_plan(graph: ChannelGraph, seed: int) -> Plan:
    """Removes 10 to 90 % of each group, each at a ratio of its own: equal ratios hide wrong couplings."""
    rng = random.Random(seed)
    kept = {}
    for group in graph.prunable:
        width = len(group.rows[0])
        count = min(max(round(width * rng.uniform(0.1, 0.9)), 1), max(1, width - 1))
        kept[group.name] = tuple(sorted(i for row in group.rows for i in rng.sample(row, count)))
    for branches in graph.branches:
        gone = rng.sample(range(branches.size), round(branches.size * rng.uniform(0.1, 0.7)))
        kept |= without_branches(graph, kept, branches, gone)
    return Plan(kept, {name: graph[name].size for name in kept})


def certified(model: nn.Module, graph: ChannelGraph, plan: Plan, images: torch.Tensor) -> tuple[float, str]:
    """Error and failure by the code's own certificate."""
    certificate = certify(model, graph, plan_cut(graph, plan), Inputs.of(images))
    return certificate.max_error, certificate.failure


def compared(network: Network, graph: ChannelGraph, plan: Plan) -> tuple[float, str]:
    """Error by the masked original of the tests, and what is wrong."""
    model, images = network.model, network.images
    masked = masked_network(model, masks_of(graph, plan, model))
    if difference(answers(model, images), answers(masked, images)) < 0.01:
        return 0.0, "the cut does not show in the output: the comparison proves nothing"
    pruned = copy.deepcopy(model)
    apply_(pruned, graph.cut(plan))
    with FlopCounterMode(display=False) as counter:
        answers(pruned, images)
    error = max(difference(answers(masked, x), answers(pruned, x)) for x in seen(model, images))
    if error > TOLERANCE:
        return error, f"the masked original differs by {error:.0e}"
    kept = graph.widths(plan)
    held = (sum(p.numel() for p in pruned.parameters()), counter.get_total_flops() // 2)
    told = (round(graph.costs.params(kept)), round(graph.costs.macs(kept)))
    return error, "" if held == told else f"parameters and MACs left: {held}; foretold: {told}"


def seen(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """The traced images, and two of another shape where the network takes it: sizes may agree by chance."""
    _, bands, height, width = images.shape
    generator = torch.Generator().manual_seed(2)
    others = torch.randn(2, bands, height + 32, width + 64, generator=generator)
    try:
        answers(model, others)
    except Exception:
        return [images]
    return [images, others]


def pinned_share(graph: ChannelGraph) -> tuple[float, str]:
    """Share of the parameters that run which no plan can remove, and the reason that pins most of them."""
    shapes = {name: graph.trace.shapes[name] for name in graph.trace.parameters if name not in graph.idle}
    pinned = {name: np.ones(shape, dtype=bool) for name, shape in shapes.items()}
    for name, units in _members(graph, prunable=True):
        pinned[name] &= units < 0
    reasons: Counter[str] = Counter()
    for group in graph.groups:
        if not group.prunable:
            for name, units in _members(graph, prunable=False, only=group.name):
                reasons[group.reason] += int((pinned[name] & (units >= 0)).sum())
    total = sum(int(np.prod(shape)) for shape in shapes.values())
    return sum(int(p.sum()) for p in pinned.values()) / total, reasons.most_common(1)[0][0] if reasons else ""


def _members(
    graph: ChannelGraph, *, prunable: bool, only: str | None = None
) -> list[tuple[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]]:
    """The channel of each element of each parameter in groups, broadcastable to its shape; -1 for none."""
    chosen = [g for g in graph.groups if g.prunable == prunable and only in (None, g.name)]
    found = []
    for member in (m for group in chosen for m in group.members if m.parameter):
        shape = graph.trace.shapes[member.tensor]
        dims = [size if d in member.dims else 1 for d, size in enumerate(shape)]
        found.append((member.tensor, member.units.numpy().reshape(dims)))
    return found
