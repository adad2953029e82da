"""Before and after, side by side: as plain values for a file and as a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.table import Table

from seg_pruning.profiling.cost import Cost

Row = Mapping[str, float | None]
"""Values by name: costs as `flat` names them, and any metrics."""

_LABELS = {
    "params": "params",
    "macs": "MACs",
    "flops": "FLOPs",
    "latency_p50_ms": "latency p50 (ms)",
    "latency_p95_ms": "latency p95 (ms)",
}


def flat(cost: Cost) -> dict[str, float]:
    """`cost` as plain values: params, macs, flops and, where measured, latency_p50_ms and latency_p95_ms.

    Example:
        >>> flat(Cost(params=10, macs=7))
        {'params': 10, 'macs': 7, 'flops': 14}
    """
    values: dict[str, float] = {"params": cost.params, "macs": cost.macs, "flops": cost.flops}
    if cost.latency is not None:
        values |= {"latency_p50_ms": cost.latency.p50_ms, "latency_p95_ms": cost.latency.p95_ms}
    return values


def comparison(dense: Row, pruned: Row) -> dict[str, dict[str, float | None]]:
    """The two side by side, in plain values that strict JSON can hold.

    Returns:
        `{"dense": ..., "pruned": ..., "ratio": ...}`; ratio is pruned / dense of what both have. A value
        that is not finite, and a ratio to zero or to such a value, is `None`.

    Example:
        >>> comparison({"params": 10, "test/dice": 0.8}, {"params": 3, "test/dice": 0.6})["ratio"]["params"]
        0.3
    """
    ratio = {name: _ratio(dense[name], pruned[name]) for name in dense if name in pruned}
    return {"dense": _finite(dense), "pruned": _finite(pruned), "ratio": ratio}


def table(compared: Mapping[str, Row], *, title: str = "Before and after pruning") -> Table:
    """What `comparison` gave, as one table: costs first, then the metrics; "-" where there is no number."""
    view = Table(title=title)
    view.add_column("")
    for column in compared:
        view.add_column("pruned / dense" if column == "ratio" else column, justify="right")
    present = {name: None for row in compared.values() for name in row}
    for name in [
        *(known for known in _LABELS if known in present),
        *(n for n in present if n not in _LABELS),
    ]:
        cells = [
            _cell("ratio" if column == "ratio" else name, row.get(name)) for column, row in compared.items()
        ]
        view.add_row(_LABELS.get(name, name), *cells)
    return view


def _finite(row: Row) -> dict[str, float | None]:
    """`row` with what JSON has no number for made `None`."""
    return {
        name: value if value is not None and math.isfinite(value) else None for name, value in row.items()
    }


def _ratio(dense: float | None, pruned: float | None) -> float | None:
    """The quotient pruned / dense, where that is a number."""
    if dense is None or pruned is None or dense == 0:
        return None
    ratio = pruned / dense
    return ratio if math.isfinite(ratio) else None


def _cell(name: str, value: float | None) -> str:
    """A value as people read it: whole parameters, MACs with a unit, the rest with three digits."""
    if value is None:
        return "-"
    if name in ("macs", "flops"):
        scale, unit = (1e9, "G") if value >= 1e9 else (1e6, "M")
        return f"{value / scale:.2f} {unit}"
    return f"{value:,.0f}" if name == "params" else f"{value:.3f}"
