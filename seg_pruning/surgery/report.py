"""The table of a graph's groups, for reading."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGraph, ChannelGroup


_NUMBERS = ("channels", "params", "MACs")


def report(graph: ChannelGraph, *, width: int = 140) -> str:
    """Each group with its size, its layers, what goes when it is halved, and why it is pinned if it is."""
    table = Table(title=_title(graph), title_justify="left")
    for column in ("group", "channels", "params", "MACs", ""):
        table.add_column(column, justify="right" if column in _NUMBERS else "left", overflow="fold")
    shares = _shares(graph)
    for group in graph.groups:
        params, macs = shares.get(group.name, ("", ""))
        table.add_row(group.name, str(group.size), params, macs, group.reason or _note(graph, group))
    text = io.StringIO()
    Console(file=text, width=width, force_jupyter=False).print(table)
    for name in graph.idle[:10]:
        text.write(f"never runs: {name}\n")
    if len(graph.idle) > 10:
        text.write(f"never runs: {len(graph.idle) - 10} more parameters\n")
    return text.getvalue()


def _note(graph: ChannelGraph, group: ChannelGroup) -> str:
    whole = any(group.name in branches.rows for branches in graph.branches)
    fewer = ", or fewer" if whole else ""
    blocks = f"{len(group.rows)} blocks of equal width{fewer}; " if len(group.rows) > 1 else ""
    population = (
        "; norms, means or softmax run over those that are kept" if group.name in graph.populations else ""
    )
    return f"{blocks}{len(group.layers)} layers{population}"


def _full(graph: ChannelGraph) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([group.size for group in graph.prunable], dtype=np.float64)


def _title(graph: ChannelGraph) -> str:
    full = _full(graph)
    free = sum(group.size for group in graph.prunable)
    total = sum(group.size for group in graph.groups)
    return (
        f"{len(graph.prunable)} of {len(graph.groups)} groups can be pruned ({free} of {total} channels); "
        f"{graph.costs.params(full):,} params, {graph.costs.macs(full):,} MACs; "
        "shares: what goes when a group is halved"
    )


def _shares(graph: ChannelGraph) -> dict[str, tuple[str, str]]:
    """Share of params and of MACs that halving each prunable group would remove."""
    full = _full(graph)
    params, macs = graph.costs.params(full), graph.costs.macs(full)
    shares = {}
    for i, group in enumerate(graph.prunable):
        half = full.copy()
        half[i] /= 2
        less_params = 1 - graph.costs.params(half) / params if params else 0.0
        less_macs = 1 - graph.costs.macs(half) / macs if macs else 0.0
        shares[group.name] = (f"{less_params:.1%}", f"{less_macs:.1%}")
    return shares
