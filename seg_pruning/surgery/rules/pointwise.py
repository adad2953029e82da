"""Element-wise ops, copies, and tensors whose elements are all alike."""

import torch

from seg_pruning.surgery.labels import LabelSet
from seg_pruning.surgery.ledger import Call, Ledger
from seg_pruning.surgery.rules.registry import POINTWISE, rule

aten = torch.ops.aten


def pointwise(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Labels that meet are tied; a dim of size 1 that broadcasts ties nothing (1-channel gates)."""
    operands = [(ledger.labels(t), t.shape) for t in call.tensors]
    merged = ledger.merge(operands, call.outputs[0].ndim, call.name)
    return (merged,) * len(call.outputs)


POINTWISE.append(pointwise)


@rule(
    aten.clone,
    aten.detach,
    aten.alias,
    aten.contiguous,
    aten._to_copy,
    aten.lift_fresh,
    aten.lift_fresh_copy,
    aten.zeros_like,
    aten.ones_like,
    aten.full_like,
    aten.empty_like,
    aten.rand_like,
    aten.randn_like,
    aten.native_dropout,
    aten.bernoulli,
)
def same(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """The output's indices are the first input's."""
    return (ledger.labels(call.tensors[0]),) * len(call.outputs)


@rule(aten.copy, aten.fill, aten.zero, aten.masked_fill)
def overwrite(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Values written into a tensor are tied to the place where they land."""
    return pointwise(ledger, call)


@rule(
    aten.zeros, aten.ones, aten.full, aten.empty, aten.new_zeros, aten.new_ones, aten.new_full, aten.new_empty
)
def constant(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """All elements are alike, so any of them may leave; the trial finds a size that does not follow."""
    return (ledger.free(call.outputs[0].shape),)


@rule(aten._prelu_kernel)
def prelu(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """One slope for each channel, or one for all; torch has already shaped it to broadcast."""
    return pointwise(ledger, call)
