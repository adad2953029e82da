"""What was asked of a pruned network, what its plan foretold, and what it costs in the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from seg_pruning.profiling import cost, peak_memory
from seg_pruning.pruning.amounts import Amounts, Meter, amounts
from seg_pruning.pruning.budgets import Budget
from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.note import structure_of
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace

Spending = dict[str, dict[str, float | None]]


def spending(
    budget: Budget,
    networks: Mapping[str, nn.Module],
    inputs: Inputs,
    *,
    milliseconds: Mapping[str, float],
) -> Spending:
    """For each amount in `budget` what was ``asked``, ``predicted`` and ``got``, in absolute numbers.

    Predicted is what the graph of the dense network says of the widths that are left; None for a latency,
    which only a measured table foretells, and where the cuts cannot be told as one. Got is counted and
    measured on the pruned network.

    Args:
        budget: what was asked.
        networks: ``dense`` and ``pruned``.
        inputs: what they are called with.
        milliseconds: measured latency of the two.
    """
    graph = trace(networks["dense"], inputs)
    present = replace(amounts(graph), latency_ms=milliseconds["dense"])
    asked, foretold = budget.limit(present).known, _foretold(Meter(graph), networks["pruned"])
    found = _got(budget, networks["pruned"], inputs, {group.name: group.size for group in graph.groups})
    got = replace(found, latency_ms=milliseconds["pruned"]).known
    return {
        name: {"asked": asked[name], "predicted": foretold.get(name), "got": got[name]}
        for name in budget.names
    }


def _foretold(meter: Meter, pruned: nn.Module) -> Mapping[str, float]:
    structure = structure_of(pruned)
    plans = (Plan({}, {}),) if structure is None else structure.plans
    if len(plans) != 1 or any(name not in meter.graph.by_name for name in plans[0].kept):
        return {}
    return replace(meter, dropped=plans[0].dropped).read(meter.widths(plans[0])).known


def _got(budget: Budget, pruned: nn.Module, inputs: Inputs, widths: Mapping[str, int]) -> Amounts:
    found = cost(pruned, inputs)
    # Channels are not worth a trace where nobody asked for them.
    channels = amounts(trace(pruned, inputs), dense=widths).channels if budget.channels is not None else 0
    return Amounts(found.params, found.macs, channels, peak_memory(pruned, inputs))
