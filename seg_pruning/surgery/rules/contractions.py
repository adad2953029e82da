"""Convolutions and matrix products: the contracted dim is tied, the others pass."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from seg_pruning.surgery.entries import Call, Work
from seg_pruning.surgery.expressions import Attribute, Expression
from seg_pruning.surgery.labels import LabelArray, LabelSet, Shape, along, span, touching, vector
from seg_pruning.surgery.ledger import Ledger
from seg_pruning.surgery.rules.branching import branch
from seg_pruning.surgery.rules.registry import rule

aten = torch.ops.aten


def _macs(call: Call) -> int:
    """Multiply-accumulates as torch counts them (it counts two FLOPs for each, none for in-place forms)."""
    count = flop_registry.get(call.func.overloadpacket)
    if count is None:
        return 0
    arguments = dict(call.arguments)
    positional = [
        arguments.pop(a.name) for a in call.func._schema.arguments if not a.kwarg_only and a.name in arguments
    ]
    return int(count(*positional, **arguments, out_val=call.outputs[0])) // 2


# -- convolution ------------------------------------------------------------------------------------------


@rule(aten.convolution)
def convolution(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """The input's channels are tied to the weight's input side; the output carries its output side."""
    x, weight = call["input"], call["weight"]
    _pin_non_channels(ledger, call)
    if call["groups"] == 1:
        made = _dense(ledger, call)
    elif _is_depthwise(ledger, call):
        made = _depthwise(ledger, call)
    else:
        made = _grouped(ledger, call)
    ledger.work.append(Work(_macs(call), ledger.labels(weight)))
    if made is None:
        for tensor in call.tensors:
            ledger.pin(ledger.labels(tensor), f"{call.name} reads a weight whose channels are not known")
        return ((),)
    if call["bias"] is not None and len(made) > 1:
        bias = ledger.vector(call["bias"], 0)
        ledger.meet(made, bias, f"the bias of {call.name} is fixed")
        ledger.scales.note_sum(made, bias)
    return ((along(made, 1, x.ndim),) if len(made) > 1 else (),)


def _pin_non_channels(ledger: Ledger, call: Call) -> None:
    x, weight = call["input"], call["weight"]
    spatial = range(2, weight.ndim)
    for array in touching(ledger.labels(weight), spatial):
        ledger.role(array, "spatial")
    ledger.set(weight, ledger.unmixed(ledger.labels(weight), spatial, "the extent of a kernel"))
    slid = [0, *range(2, x.ndim)]
    ledger.set(x, ledger.unmixed(ledger.labels(x), slid, f"{call.name} slides over it"))


def _sides(ledger: Ledger, call: Call) -> tuple[int, int]:
    """The weight's dims that make the output's channels and that read the input's; their roles are noted."""
    out, read = (1, 0) if call["transposed"] else (0, 1)
    ledger.role(ledger.vector(call["weight"], out), "out")
    ledger.role(ledger.vector(call["weight"], read), "in")
    return out, read


def _dense(ledger: Ledger, call: Call) -> LabelArray | None:
    x, weight = call["input"], call["weight"]
    out, read = _sides(ledger, call)
    ledger.meet(
        ledger.vector(x, 1),
        ledger.vector(weight, read),
        f"{call.name} reads or holds channels that are fixed",
    )
    if weight.shape[out] == 1:
        return np.zeros(1, dtype=np.int64)
    return ledger.vector(weight, out)


def _depthwise(ledger: Ledger, call: Call) -> LabelArray | None:
    """One input channel for each group: it leaves with all the filters that read it, and `groups` follows."""
    x, weight, groups = call["input"], call["weight"], call["groups"]
    made = ledger.vector(weight, 0)
    ledger.role(made, "out")
    read = ledger.vector(x, 1)
    if made is None or read is None:
        ledger.pin(made if made is not None else read, f"{call.name} reads or holds channels that are fixed")
        return made
    ledger.tie(made.reshape(groups, -1), read.reshape(groups, 1))
    size = _groups_passed(ledger, call)
    if size is None:
        ledger.pin(read, f"{call.name} is given {groups} groups by a number")
    ledger.fit(read, {0: size}, 0)
    return made


def _is_depthwise(ledger: Ledger, call: Call) -> bool:
    """Whether each group of the dense network had one channel to read."""
    size, dense = _groups_passed(ledger, call), ledger.dense_shape(call["weight"])
    groups = ledger.dense_sizes.get(size, call["groups"]) if isinstance(size, Attribute) else call["groups"]
    return dense[1] == 1 and (not call["transposed"] or dense[0] == groups)


def _groups_passed(ledger: Ledger, call: Call) -> Expression | None:
    """How the number of groups that Python passed came about."""
    # Behind strides and paddings; a transposed convolution has its dilations still behind it.
    last = call["weight"].ndim - 1 if call["transposed"] else 1
    return ledger.size(call, call["groups"], at=slice(-last, None))


def _grouped(ledger: Ledger, call: Call) -> LabelArray | None:
    """Each group keeps as many inputs, and as many filters, as every other; which ones may differ."""
    x, weight, groups = call["input"], call["weight"], call["groups"]
    outer = ledger.vector(weight, 0)
    if weight.shape[1] == 1 and outer is not None:
        return _shrunk(ledger, call, outer)
    joint = next((a for a in ledger.labels(weight) if span(a) == (0, 1)), None)
    if outer is None or joint is None:
        _want_joint(ledger, weight)
        return None
    read = ledger.vector(x, 1)
    grid = joint.reshape(groups, -1, weight.shape[1])  # (group, row of the weight, column of the weight)
    if call["transposed"]:
        made = ledger.fresh(groups * weight.shape[1])
        ledger.tie(grid, made.reshape(groups, 1, -1))
        ledger.role(outer, "in")
        ledger.role(joint, "out")
        ledger.meet(outer, read, f"{call.name} reads channels that are fixed")
        rows = (outer, made)
    else:
        made = outer
        ledger.role(outer, "out")
        ledger.role(joint, "in")
        if read is None:
            ledger.pin(joint, f"{call.name} reads channels that are fixed")
        else:
            ledger.tie(grid, read.reshape(groups, 1, -1))
        rows = (made, np.ascontiguousarray(grid[:, 0]))
    why = f"{call.name} has {groups} groups of equal width"
    branch(ledger, [row.reshape(groups, -1) for row in rows], _groups_passed(ledger, call), why)
    return made


def _shrunk(ledger: Ledger, call: Call, outer: LabelArray) -> LabelArray:
    """Groups with one channel left on the weight's second dim: it leaves with its group, if at all."""
    groups, transposed = call["groups"], call["transposed"]
    read, size = ledger.vector(call["input"], 1), _groups_passed(ledger, call)
    ledger.role(outer, "in" if transposed else "out")
    if transposed:
        ledger.meet(outer, read, f"{call.name} reads channels that are fixed")
    single = ledger.fresh(groups) if transposed else read
    lines = [outer.reshape(groups, -1)]
    if not isinstance(size, Attribute) or single is None:
        ledger.pin(single, f"{call.name} has {groups} groups of which one channel is left")
    else:
        lines.append(single.reshape(groups, 1))
    branch(ledger, lines, size, f"{call.name} has {groups} groups of equal width")
    return outer if single is None or not transposed else single


def _want_joint(ledger: Ledger, weight: Tensor) -> None:
    """Asks for the channel dims of the parameter behind `weight` to be labelled together in the next pass."""
    read, made = ledger.vector(weight, 1), ledger.vector(weight, 0)
    if read is None or made is None:
        return
    source, other = ledger.minted(int(read[0])), ledger.minted(int(made[0]))
    if source is not None and other is not None and source.tensor == other.tensor:
        ledger.wanted_joint[source.tensor] = (*other.dims, *source.dims)


# -- matrix products --------------------------------------------------------------------------------------


def contract(
    ledger: Ledger, call: Call, operands: Sequence[tuple[LabelSet, Shape]], dim: int
) -> tuple[LabelSet, LabelSet]:
    """The labels of a product summed over `dim`, of tensors whose dims are laid out in one common space.

    Gives the arrays that pass, and those that end in the sum.
    """
    passing, ended = [], []
    for array in ledger.merge(operands, len(operands[0][1]), call.name):
        why = f"{call.name} runs over blocks of equal width"
        if dim not in span(array):
            passing.append(array)
        elif span(array) == (dim,) or ledger.narrow(array, [dim], why) == dim:
            ended.append(array)
        else:
            passing.append(ledger.tie_along(array, [dim]))
    return ledger.distinct(passing), ledger.distinct(ended)


def product(ledger: Ledger, call: Call, a: Tensor, b: Tensor) -> LabelSet:
    """The labels of `a @ b` for matrices `(..., i, k)` and `(..., k, j)`, in the space `(..., i, k, j)`."""
    la = tuple(np.expand_dims(array, array.ndim) for array in ledger.labels(a))
    lb = tuple(np.expand_dims(array, array.ndim - 2) for array in ledger.labels(b))
    shapes = (*a.shape, 1), (*b.shape[:-2], 1, *b.shape[-2:])
    space = a.ndim + 1
    passing, ended = contract(ledger, call, [(la, shapes[0]), (lb, shapes[1])], space - 2)
    ledger.work.append(Work(_macs(call), (*passing, *ended)))
    ledger.scales.ended = tuple(np.moveaxis(array, space - 2, -1) for array in ended)
    _note_roles(ledger, a, b)
    made = _drop(passing, space - 2)
    contracted = any(space - 2 in span(array) for array in (*la, *lb))
    # A weight's removed columns are zero; two activations may hold anything where a channel is masked.
    if contracted and not any(is_parameter(ledger, t) for t in (a, b)):
        ledger.site(call, (made,))
    return made


def note_sum(ledger: Ledger, made: tuple[LabelSet, int], bias: Tensor) -> None:
    """Notes a bias that is added along the last dim of what was made, of that many dims."""
    labels, ndim = made
    if bias.ndim:
        ledger.scales.note_sum(vector(labels, ndim - 1), ledger.vector(bias, bias.ndim - 1))


def is_parameter(ledger: Ledger, tensor: Tensor) -> bool:
    """Whether `tensor` is a parameter or buffer, or a view of one."""
    base = tensor if tensor._base is None else tensor._base
    return ledger.named(base) is not None


def _note_roles(ledger: Ledger, a: Tensor, b: Tensor) -> None:
    for weight, read, made in ((a, a.ndim - 1, a.ndim - 2), (b, b.ndim - 2, b.ndim - 1)):
        ledger.role(ledger.vector(weight, made), "out")
        ledger.role(ledger.vector(weight, read), "in")


def _drop(labels: LabelSet, dim: int) -> LabelSet:
    return tuple(array.squeeze(dim) for array in labels if array.shape[dim] == 1)


@rule(aten.mm, aten.bmm)
def mm(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """A matrix product, batched or not."""
    return (product(ledger, call, call["self"], call["mat2"]),)


@rule(aten.addmm, aten.baddbmm)
def addmm(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """A matrix product plus a tensor that broadcasts, such as a bias."""
    a, b = [
        call.arguments[name]
        for name in (("mat1", "mat2") if "mat1" in call.arguments else ("batch1", "batch2"))
    ]
    made = product(ledger, call, a, b)
    bias = call["self"]
    out = call.outputs[0]
    note_sum(ledger, (made, out.ndim), bias)
    return (ledger.merge([(made, out.shape), (ledger.labels(bias), bias.shape)], out.ndim, call.name),)


@rule(aten.mv, aten.dot)
def mv(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """A matrix or a vector times a vector."""
    a, b = call.tensors[0], call.tensors[1]
    row = tuple(array.reshape((1,) * (a.ndim - 1) + (-1,)) for array in ledger.labels(b))
    shape = (1,) * (a.ndim - 1) + tuple(b.shape)
    passing, _ = contract(ledger, call, [(ledger.labels(a), a.shape), (row, shape)], a.ndim - 1)
    return (_drop(passing, a.ndim - 1),)
