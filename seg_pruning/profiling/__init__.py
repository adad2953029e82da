"""What a network costs: parameters, multiply-accumulates, memory, measured latency."""

from seg_pruning.profiling.cost import Cost, cost
from seg_pruning.profiling.latency import Latency, compare_latency, latency
from seg_pruning.profiling.latency_model import LatencyModel, latency_of
from seg_pruning.profiling.memory import peak_memory
from seg_pruning.profiling.table import comparison, flat, table
from seg_pruning.profiling.target import Target

__all__ = (
    "Cost",
    "Latency",
    "LatencyModel",
    "Target",
    "compare_latency",
    "comparison",
    "cost",
    "flat",
    "latency",
    "latency_of",
    "peak_memory",
    "table",
)
