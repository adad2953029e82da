"""What a network costs: parameters, multiply-accumulates, memory, measured latency."""

from seg_pruning.profiling.cost import Cost, cost
from seg_pruning.profiling.latency import Latency, compare_latency, latency
from seg_pruning.profiling.memory import peak_memory
from seg_pruning.profiling.table import comparison, flat, table

__all__ = (
    "Cost",
    "Latency",
    "compare_latency",
    "comparison",
    "cost",
    "flat",
    "latency",
    "peak_memory",
    "table",
)
