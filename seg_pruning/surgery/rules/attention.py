"""Attention: of the fused one heads meet, queries and keys end, values pass; the scale of any is kept."""

import numpy as np
import torch
from torch import Tensor

from seg_pruning.surgery.entries import Call, Work
from seg_pruning.surgery.labels import LabelSet, span
from seg_pruning.surgery.ledger import Ledger
from seg_pruning.surgery.rules.contractions import contract
from seg_pruning.surgery.rules.pointwise import pointwise
from seg_pruning.surgery.rules.reductions import distribution
from seg_pruning.surgery.rules.registry import rule
from seg_pruning.surgery.scales import Root

aten = torch.ops.aten


ATTENTION = (
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten._scaled_dot_product_flash_attention,
    aten._scaled_dot_product_efficient_attention,
    aten._scaled_dot_product_cudnn_attention,
)


SCALE = "takes its scale from the width of a head"


def hold_width(ledger: Ledger, query: Tensor, key: Tensor) -> None:
    """Notes that the scale of the next call of fused attention is computed from the width of its queries.

    That width stays and whole heads leave. Where they cannot, since a residual stream is as wide as all heads
    together, the ledger says that the width may leave: the cut scales the queries to make up for it.
    """
    last = query.ndim - 1
    if not ledger.scales.note(tuple(a for a in ledger.labels(query) if last in span(a))):
        for tensor in (query, key):
            ledger.set(tensor, ledger.unmixed(ledger.labels(tensor), [last], f"attention {SCALE}"))


@rule(aten.mul, aten.div)
def scale(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """As any element-wise op; attention by hand divides by the root of a width, which the cut makes up for.

    What it divides are the queries, or the products of queries and keys.
    """
    factor = call["other"]
    found = ledger.scales.take_root(factor) if isinstance(factor, float) else None
    if found is not None:
        x, (size, power) = call["self"], found
        own = tuple(a for a in ledger.labels(x) if x.ndim and a.shape[-1] > 1)
        power = power if call.func.overloadpacket in (aten.mul, aten.mul_) else -power
        ledger.scales.roots.append(Root(own or ledger.scales.ended, size, power))
    return pointwise(ledger, call)


def note_root(ledger: Ledger, query: Tensor, factor: float) -> None:
    """Notes that Python gives the root of a width to fused attention, if `factor` is one."""
    found = ledger.scales.take_root(factor)
    if found is not None:
        queries = tuple(a for a in ledger.labels(query) if query.ndim - 1 in span(a))
        ledger.scales.roots.append(Root(queries, *found))


@rule(*ATTENTION)
def attention(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """`(N, heads, length, width)`: heads meet, widths of queries and keys end, those of values pass.

    Where channels stand along the lengths, as in attention between channels, those of the queries pass, and
    the weights are a distribution over those of the keys that are kept.
    """
    q, k, v = call["query"], call["key"], call["value"]
    added = [t for t in call.tensors if all(t is not other for other in (q, k, v))]
    known = call.caller == "scaled_dot_product_attention"  # its scale was looked at by `hold_width`
    lengths = [2] if added or call.arguments.get("is_causal") else []
    read = [0, *lengths] if known else [0, *lengths, 3]
    sides = [ledger.unmixed(ledger.labels(t), read, f"{call.name} mixes it") for t in (q, k)]
    values = ledger.unmixed(ledger.labels(v), [0, *lengths], f"{call.name} mixes it")
    if known and ledger.scales.narrows_last:
        for tensor in added:  # the heads stay, so that what is told of each of them does not tie its width
            ledger.pin(ledger.labels(tensor), f"{call.name} keeps its heads, which lose width")
            ledger.set(tensor, ())
    operands = [_spread(sides[0], q, 3), _spread(sides[1], k, 2), *(_bias(ledger, call, t) for t in added)]
    heads, contracted = contract(ledger, call, operands, 4)  # (N, heads, queries, keys, width)
    weights, over = distribution(ledger, heads, 3)
    weighing = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
    mixed = [(weights, (*q.shape[:3], k.shape[2], 1)), _spread(values, v, 2)]
    passing, summed = contract(ledger, call, mixed, 3)
    ledger.work.append(Work(weighing * q.shape[3], (*heads, *contracted)))
    ledger.work.append(Work(weighing * v.shape[3], (*passing, *summed)))
    made = tuple(array.squeeze(3) for array in passing)
    if contracted or made or over:
        ledger.site(call, (made,) + ((),) * (len(call.outputs) - 1), over=over)
    return (made,) + ((),) * (len(call.outputs) - 1)


def _spread(labels: LabelSet, tensor: Tensor, dim: int) -> tuple[LabelSet, tuple[int, ...]]:
    """Labels and shape of queries, keys or values with one more dim, for the length that they do not have."""
    shape = (*tensor.shape[:dim], 1, *tensor.shape[dim:])
    return tuple(np.expand_dims(array, dim) for array in labels), shape


def _bias(ledger: Ledger, call: Call, tensor: Tensor) -> tuple[LabelSet, tuple[int, ...]]:
    """What is added to the weights of each head, as it meets queries and keys."""
    over = [tensor.ndim - 2, tensor.ndim - 1]
    labels = ledger.unmixed(ledger.labels(tensor), over, f"{call.name} adds it to its weights")
    return tuple(array[..., None] for array in labels), (*tensor.shape[:-2], 1, 1, 1)
