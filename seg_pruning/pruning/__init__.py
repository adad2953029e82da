"""Which channels leave: criteria, budgets, schedules, selection; for any torch user."""

from seg_pruning.pruning import criteria, schedules
from seg_pruning.pruning.budgets import Amounts, Budget, amounts
from seg_pruning.pruning.prune import PruneResult, prune_
from seg_pruning.pruning.score import RunningScores, Scores, score
from seg_pruning.pruning.selection import Selection, check_reachable, select
from seg_pruning.pruning.timed import TimedPlan, select_timed

__all__ = [
    "Amounts",
    "Budget",
    "PruneResult",
    "RunningScores",
    "Scores",
    "Selection",
    "TimedPlan",
    "amounts",
    "check_reachable",
    "criteria",
    "prune_",
    "schedules",
    "score",
    "select",
    "select_timed",
]
