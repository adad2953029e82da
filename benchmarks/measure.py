"""What is measured of one network: by this package, and by Torch-Pruning at one of its settings."""

import copy
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.certificate import certify, difference
from seg_pruning.surgery.cut import plan_cut
from seg_pruning.surgery.graph import ChannelGraph
from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.operation import operate_
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace
from tests.surgery.oracle import answers, masks_of
from tests.zoo.check import pinned_share, timed
from tests.zoo.masked import cannot_be_masked, masked_network
from tests.zoo.networks import Case, Network, RefusalError, build

OURS = "seg_pruning"
DEFAULTS = "defaults"
NUM_HEADS = "num_heads"
NO_ATTENTION = "no attention"
TOOLS = (OURS, DEFAULTS, NUM_HEADS, NO_ATTENTION)
EXACT = 1e-3
SIDE = 256


@dataclass(frozen=True)
class Job:
    """A network and what cuts it."""

    case: Case
    tool: str


@dataclass(frozen=True)
class Found:
    """What came of a job.

    Attributes:
        side: height and width of the image.
        params: parameters that run.
        forward_s: seconds of a forward pass, median of five.
        seconds: for trace, plan, cut and certificate; of Torch-Pruning for its graph and its cut.
        error: difference from the masked original, relative to the output; None where the tests cannot build
            it.
        kept: share of the parameters that run which is left when half of each group goes.
        skipped: share of the parameters that run in tensors that kept their shape.
        pinned: share of the parameters that run which no plan can remove; of this package only.
        memory: peak above the network in a forward pass and in a cut, and the network itself, in bytes.
        problem: why there is no pruned network that runs.
    """

    side: int = 0
    params: int = 0
    forward_s: float = 0.0
    seconds: float = 0.0
    error: float | None = None
    kept: float = 1.0
    skipped: float = 1.0
    pinned: float | None = None
    memory: tuple[int, int, int] | None = None
    problem: str = ""


@dataclass(frozen=True)
class _Dense:
    """The network as it was, and what is the same for each tool."""

    network: Network
    side: int
    running: dict[str, int]
    forward_s: float


def measure(job: Job) -> Found | None:
    """What came of `job`; None where smp refuses the network, or the setting changes nothing."""
    try:
        network = _built(job.case)
    except RefusalError:
        return None
    from_heads = job.tool in (NUM_HEADS, NO_ATTENTION)
    if from_heads and not any(
        isinstance(getattr(m, "num_heads", None), int) for m in network.model.modules()
    ):
        return None
    running = _running(network)
    forward_s = statistics.median(timed(lambda: answers(network.model, network.images))[1] for _ in range(5))
    dense = _Dense(network, network.images.shape[-1], running, forward_s)
    return _ours(dense, job.case) if job.tool == OURS else _theirs(dense, job)


def _built(case: Case) -> Network:
    try:
        return build(case, side=SIDE)
    except RefusalError:
        return build(case)  # made for another size


def _running(network: Network) -> dict[str, int]:
    """Elements of each parameter that the output depends on."""
    outputs = network.model(network.images)
    total = sum(t.sum() for t in (outputs if isinstance(outputs, tuple) else (outputs,)))
    names = [name for name, p in network.model.named_parameters() if p.requires_grad]
    params = [p for p in network.model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(total, params, allow_unused=True)
    return {n: p.numel() for n, p, g in zip(names, params, grads, strict=True) if g is not None}


def _ours(dense: _Dense, case: Case) -> Found:
    model, images = dense.network.model, dense.network.images
    graph, trace_s = timed(lambda: trace(model, images))
    plan = half(graph)
    certificate, cut_s = timed(lambda: certify(model, graph, plan_cut(graph, plan), Inputs.of(images)))
    if not certificate.passed:
        return Found(problem=certificate.failure or f"the certificate's error is {certificate.max_error:.0e}")
    pruned = copy.deepcopy(model)
    apply_(pruned, graph.cut(plan))
    masks = None if cannot_be_masked(case) else masks_of(graph, plan, model)
    found = _found(dense, pruned, masks, seconds=trace_s + cut_s)
    pinned = pinned_share(graph)[0]
    del pruned, masks
    return replace(found, pinned=pinned, memory=_memory(dense, graph, plan))  # last: it cuts the network


def half(graph: ChannelGraph) -> Plan:
    """Removes half of each block of each group, at random."""
    rng = random.Random(0)
    kept = {}
    for group in graph.prunable:
        rows = [rng.sample(row, (len(row) + 1) // 2) for row in group.rows]
        kept[group.name] = tuple(sorted(i for row in rows for i in row))
    return Plan(kept, {name: graph[name].size for name in kept})


def _memory(dense: _Dense, graph: ChannelGraph, plan: Plan) -> tuple[int, int, int]:
    from benchmarks.memory import peak_above  # here: it needs Linux

    model, images = dense.network.model, dense.network.images
    held = (*model.parameters(), *model.buffers())
    size = sum(t.numel() * t.element_size() for t in held)
    forward = peak_above(lambda: answers(model, images))
    return forward, peak_above(lambda: operate_(model, graph, plan, Inputs.of(images))), size


def _theirs(dense: _Dense, job: Job) -> Found:
    from benchmarks import peer  # here: it needs the extra `benchmark`

    prune: dict[str, Callable[[nn.Module, Tensor], peer.Left]] = {
        DEFAULTS: peer.prune_defaults,
        NUM_HEADS: peer.prune_num_heads,
        NO_ATTENTION: peer.prune_without_attention,
    }
    left = prune[job.tool](dense.network.model, dense.network.images)
    masks = None if cannot_be_masked(job.case) else left.masks
    return _found(dense, left.model, masks, seconds=left.seconds)


def _found(
    dense: _Dense,
    pruned: nn.Module,
    masks: dict[str, Tensor] | None,
    *,
    seconds: float,
) -> Found:
    model, images = dense.network.model, dense.network.images
    got = answers(pruned, images)
    if [t.shape for t in got] != [t.shape for t in answers(model, images)]:
        raise ValueError("the output has another shape")
    error = None if masks is None else difference(answers(masked_network(model, masks), images), got)
    before = {name: p.shape for name, p in model.named_parameters()}
    after = {name: p.shape for name, p in pruned.named_parameters() if name in dense.running}
    total = sum(dense.running.values())
    return Found(
        side=dense.side,
        params=total,
        forward_s=dense.forward_s,
        seconds=seconds,
        error=error,
        kept=sum(shape.numel() for shape in after.values()) / total,
        skipped=sum(shape.numel() for name, shape in after.items() if shape == before[name]) / total,
    )
