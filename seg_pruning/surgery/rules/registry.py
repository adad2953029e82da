"""The table from ops to rules, and what happens to an op that has none."""

from collections.abc import Callable
from typing import TypeAlias

import torch

from seg_pruning.surgery.entries import Call
from seg_pruning.surgery.labels import FIXED, LabelArray, LabelSet, span
from seg_pruning.surgery.ledger import Ledger

Rule: TypeAlias = Callable[[Ledger, Call], tuple[LabelSet, ...]]

RULES: dict[torch._ops.OpOverloadPacket, Rule] = {}


def rule(*ops: torch._ops.OpOverloadPacket) -> Callable[[Rule], Rule]:
    """Registers a function as the rule of `ops`, for all their overloads."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, function))
        return function

    return register


def _find(func: torch._ops.OpOverload) -> Rule | None:
    if (found := RULES.get(func.overloadpacket)) is not None:
        return found
    functional = _functional(func)
    if functional is not None and functional in RULES:
        return RULES[functional]
    return POINTWISE[0] if torch.Tag.pointwise in func.tags and POINTWISE else None


def _functional(func: torch._ops.OpOverload) -> torch._ops.OpOverloadPacket | None:
    """The op of which `func` is the in-place form: `aten.relu` of `aten.relu_`."""
    name = func.overloadpacket.__name__
    if not name.endswith("_") or name.endswith("__"):
        return None
    return getattr(torch.ops.aten, name[:-1], None)


POINTWISE: list[Rule] = []
"""The rule of every op that carries the `pointwise` tag."""


def apply_rule(ledger: Ledger, call: Call) -> None:
    """Passes labels through one op; without a rule, everything that it touches is pinned."""
    ledger.pin_numbers(call.tensors, call.name)
    own = RULES.get(call.func.overloadpacket)
    found = own if torch.Tag.inplace_view in call.func.tags else _find(call.func)
    if found is not None:
        for tensor, labels in zip(call.outputs, found(ledger, call), strict=True):
            ledger.set(tensor, _settled(ledger, labels, call.name))
        return
    for tensor in call.tensors:
        ledger.pin(ledger.labels(tensor), f"{call.name} has no rule")
        if any(out is tensor for out in call.outputs):
            ledger.set(tensor, ())  # its shape may have changed under its labels


def _settled(ledger: Ledger, labels: LabelSet, what: str) -> LabelSet:
    """One array for each set of dims, the others pinned; a label of a whole tensor cannot leave."""
    kept: dict[tuple[int, ...], LabelArray] = {}
    for array in labels:
        dims = span(array)
        if (array == FIXED).all():
            continue  # as rigid as no labels
        if not dims:
            ledger.pin(array, f"{what} leaves a single channel")
        elif dims in kept and kept[dims] is not array:
            ledger.pin(array, f"{what} lays two kinds of channels along one axis")
        else:
            kept[dims] = array
    return tuple(kept.values())
