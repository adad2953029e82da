"""Products and distances that torch computes outside of its matrix products."""

from collections.abc import Callable

import numpy as np
import torch

from seg_pruning.surgery.entries import Call
from seg_pruning.surgery.labels import LabelArray, LabelSet
from seg_pruning.surgery.ledger import Ledger
from seg_pruning.surgery.rules.contractions import contract
from seg_pruning.surgery.rules.registry import rule

aten = torch.ops.aten


@rule(aten._cdist_forward, aten._euclidean_dist)
def cdist(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Distances of rows `(..., i, k)` and `(..., j, k)`: the features meet and end, the rows pass."""
    a, b = call["x1"], call["x2"]
    ndim = max(a.ndim, b.ndim)

    def laid(place: int) -> Callable[[LabelArray], LabelArray]:
        return lambda x: np.expand_dims(x.reshape((1,) * (ndim - x.ndim) + x.shape), place)

    la, lb = tuple(map(laid(ndim - 1), ledger.labels(a))), tuple(map(laid(ndim - 2), ledger.labels(b)))
    lead_a, lead_b = (1,) * (ndim - a.ndim), (1,) * (ndim - b.ndim)
    shapes = (*lead_a, *a.shape[:-1], 1, a.shape[-1]), (*lead_b, *b.shape[:-2], 1, *b.shape[-2:])
    merged, _ = contract(ledger, call, [(la, shapes[0]), (lb, shapes[1])], ndim)
    made: LabelSet = tuple(array.squeeze(ndim) for array in merged if array.shape[ndim] == 1)
    ledger.site(call, (made,))
    return (made,)


@rule(aten.vdot)
def vdot(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """The product of two vectors, one of them conjugated: they meet and end."""
    contract(ledger, call, [(ledger.labels(t), t.shape) for t in call.tensors], 0)
    ledger.site(call, ((),))
    return ((),)
