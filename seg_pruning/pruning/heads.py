"""Groups that feed the network's outputs: few channels whose signs decide every answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGraph

_OUTPUT = "reaches the output"


def feeding_outputs(graph: ChannelGraph) -> frozenset[str]:
    """The prunable groups that are read by a layer which makes an output, or which has a single filter."""
    heads = {m.tensor for g in graph.groups if g.reason == _OUTPUT for m in g.members if m.side == "out"}
    made = {m.tensor for g in graph.groups for m in g.members if m.side == "out"}
    return frozenset(
        group.name
        for group in graph.prunable
        if any(m.side == "in" and (m.tensor in heads or m.tensor not in made) for m in group.members)
    )
