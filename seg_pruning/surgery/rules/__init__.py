"""How labels pass through ATen ops: one small function for each, a file per kind of op.

To teach the tracer an op, write a function that takes the `Ledger` and the `Call` and returns the label set
of each tensor output, and decorate it with `@rule(torch.ops.aten.<op>)`. It goes into the file of its kind;
a new file has to be imported here. What the rule cannot carry it must pin; an op that mixes channels is noted
with `ledger.site`, one that multiplies and adds with `ledger.work`. Ops that torch tags as pointwise share
one rule. An op without a rule pins everything it touches: nothing is ever guessed.
"""

from seg_pruning.surgery.rules import (
    attention,
    contractions,
    distances,
    indexing,
    joins,
    norms,
    ordered,
    pointwise,
    reductions,
    regrouping,
    spatial,
    views,
    windows,
)
from seg_pruning.surgery.rules.registry import RULES, apply_rule

__all__ = [
    "RULES",
    "apply_rule",
    "attention",
    "contractions",
    "distances",
    "indexing",
    "joins",
    "norms",
    "ordered",
    "pointwise",
    "reductions",
    "regrouping",
    "spatial",
    "views",
    "windows",
]
