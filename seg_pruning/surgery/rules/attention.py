"""Fused attention: values pass, queries and keys keep their width because its scale is computed from it."""

import torch

from seg_pruning.surgery.labels import LabelSet, span
from seg_pruning.surgery.ledger import Call, Ledger, Work
from seg_pruning.surgery.rules.registry import rule

aten = torch.ops.aten


@rule(
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten._scaled_dot_product_flash_attention,
    aten._scaled_dot_product_efficient_attention,
    aten._scaled_dot_product_cudnn_attention,
)
def attention(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """`(N, heads, length, width)`: heads meet; the width of the output is the values'."""
    q, k, v = call["query"], call["key"], call["value"]
    last = q.ndim - 1
    reason = f"{call.name} takes its scale from the width of a head"
    for tensor in (q, k):
        ledger.pin(tuple(a for a in ledger.labels(tensor) if last in span(a)), reason)
    by_head = [(tuple(a for a in ledger.labels(t) if span(a) == (1,)), t.shape) for t in (q, k, v)]
    for tensor in call.tensors:
        if all(tensor is not t for t in (q, k, v)):
            ledger.pin(ledger.labels(tensor), f"{call.name} adds it to its weights")
    for tensor in (q, k, v):
        rest = tuple(a for a in ledger.labels(tensor) if set(span(a)) & {0, 2} or len(span(a)) > 2)
        ledger.pin(rest, f"{call.name} mixes it")
    heads = ledger.merge(by_head, q.ndim, call.name)
    values = tuple(a for a in ledger.labels(v) if last in span(a))
    weighing = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
    ledger.work.append(Work(weighing * q.shape[3], heads))
    ledger.work.append(Work(weighing * v.shape[3], heads + values))
    return (heads + values,) + ((),) * (len(call.outputs) - 1)
