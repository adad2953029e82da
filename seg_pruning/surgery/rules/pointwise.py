"""Element-wise ops, copies, and tensors whose elements are all alike."""

import torch

from seg_pruning.surgery.entries import Call
from seg_pruning.surgery.labels import LabelSet, span, touching
from seg_pruning.surgery.ledger import Ledger
from seg_pruning.surgery.rules.contractions import is_parameter, note_sum
from seg_pruning.surgery.rules.registry import POINTWISE, rule

aten = torch.ops.aten


def pointwise(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Labels that meet are tied; a dim of size 1 that broadcasts ties nothing (1-channel gates)."""
    operands = [(ledger.labels(t), t.shape) for t in call.tensors]
    merged = ledger.merge(operands, call.outputs[0].ndim, call.name)
    return (merged,) * len(call.outputs)


POINTWISE.append(pointwise)


@rule(aten.add)
def add(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """As any of them; a parameter that is added along the last dim is a bias."""
    x, *others = call.tensors
    for other in others:
        if is_parameter(ledger, other):
            note_sum(ledger, (ledger.labels(x), x.ndim), other)
    return pointwise(ledger, call)


# Element-wise too, but torch does not tag them so, or tags one of their forms only.
rule(
    aten.abs,
    aten._add_relu,
    aten.angle,
    aten.complex,
    aten.copysign,
    aten.divide,
    aten.elu,
    aten.eq,
    aten.fake_quantize_per_tensor_affine_cachemask,
    aten.floor_divide,
    aten.ge,
    aten.gelu,
    aten.gt,
    aten.hardswish,
    aten.hardtanh,
    aten.heaviside,
    aten.le,
    aten.leaky_relu,
    aten.lt,
    aten.mish,
    aten.ne,
    aten.polar,
    aten.relu6,
    aten.rrelu_with_noise,
    aten.silu,
    aten.threshold,
)(pointwise)


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
    aten.real,
    aten.imag,
    aten._conj,
    aten._neg_view,
    aten._conj_physical,
    aten.resolve_conj,
    aten.resolve_neg,
)
def same(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """The output's indices are the first input's."""
    return (ledger.labels(call.tensors[0]),) * len(call.outputs)


@rule(
    aten.copy,
    aten.fill,
    aten.zero,
    aten.masked_fill,
    aten.bernoulli_,
    aten.exponential_,
    aten.normal_,
    aten.uniform_,
)
def overwrite(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """Values written into a tensor are tied to the place where they land."""
    return pointwise(ledger, call)


@rule(
    aten.zeros,
    aten.ones,
    aten.full,
    aten.empty,
    aten.empty_strided,
    aten.empty_permuted,
    aten.new_zeros,
    aten.new_ones,
    aten.new_full,
    aten.new_empty,
    aten.new_empty_strided,
)
def constant(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """All elements are alike, so any of them may leave; the trial finds a size that does not follow."""
    return (ledger.free(call.outputs[0].shape),)


@rule(aten._prelu_kernel)
def prelu(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """One slope for each channel, or one for all; torch has already shaped it to broadcast."""
    return pointwise(ledger, call)


@rule(aten.log_sigmoid_forward)
def log_sigmoid(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """The second output is a buffer for the gradient, of the input's shape or empty."""
    labels = ledger.labels(call["self"])
    return tuple(labels if out.shape == call["self"].shape else () for out in call.outputs)


@rule(aten.view_as_real)
def view_as_real(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """A last dim of two is added: the real and the imaginary part."""
    return (tuple(array[..., None] for array in ledger.labels(call["self"])),)


@rule(aten.view_as_complex)
def view_as_complex(ledger: Ledger, call: Call) -> tuple[LabelSet, ...]:
    """The last dim, the real and the imaginary part, becomes one number."""
    last = call["self"].ndim - 1
    parts = touching(ledger.labels(call["self"]), [last])
    ledger.pin(parts, f"{call.name} reads real and imaginary parts")
    rest = tuple(a for a in ledger.labels(call["self"]) if last not in span(a))
    return (tuple(array[..., 0] for array in rest),)
