"""Channels that are halved, shuffled or laid out anew in one op."""

import torch

from seg_pruning.surgery.entries import Call
from seg_pruning.surgery.labels import LabelSet, span
from seg_pruning.surgery.ledger import Ledger
from seg_pruning.surgery.rules.registry import rule
from seg_pruning.surgery.rules.windows import passing

aten = torch.ops.aten


@rule(aten.glu)
def glu(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """The first half of a dim times a gate from the second: index by index they leave together."""
    x = call["self"]
    dim, half = call["dim"] % x.ndim, x.shape[call["dim"]] // 2
    made = []
    for array in ledger.labels(x):
        if dim in span(array):
            first, second = array.take(range(half), axis=dim), array.take(range(half, 2 * half), axis=dim)
            ledger.tie(first, second)
            array = first
        made.append(array)
    return (tuple(made),)


@rule(aten.channel_shuffle, aten.native_channel_shuffle)
def channel_shuffle(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """`(groups, width)` channels become `(width, groups)`: one channel of each group leaves at once.

    Were others to leave, those that stay would stand in another order.
    """
    x, groups = call["self"], call["groups"]
    others = [d for d in range(x.ndim) if d != 1]
    made = []
    for array in passing(ledger, ledger.labels(x), others, f"{call.name} moves over it"):
        rows = array.reshape(groups, -1)
        ledger.tie(rows, rows[:1])
        made.append(rows.T.reshape(array.shape))
    return (tuple(made),)


@rule(aten.as_strided, aten.as_strided_)
def as_strided(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Where only the strides of dims of size 1 change, as in torch's pooling to 1 x 1, all stays in place.

    The strides that a tensor had before it was changed in place are gone; it is taken for contiguous.
    """
    x, out = call["self"], call.outputs[0]
    before = torch.empty(x.shape, device="meta") if out is x else x
    if out.shape == x.shape and _wide_strides(out) == _wide_strides(before):
        return (ledger.labels(x),)
    ledger.pin(ledger.labels(x), f"{call.name} reads memory as it lies")
    return ((),)


def _wide_strides(tensor: torch.Tensor) -> list[int]:
    return [step for step, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]
