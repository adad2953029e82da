"""What a run ends with, for people and for programs."""

from seg_pruning.report.summary import Summary, summarise

__all__ = ["Summary", "summarise"]
