"""The proof of a cut: the masked original and the pruned network answer alike.

The *masked original* is the dense network with every removed element of every tensor set to zero, where the
ops that mix channels (LayerNorm, GroupNorm, means over channels) run over the kept ones only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import scaled_dot_product_attention
from typing_extensions import override

from seg_pruning.surgery.apply import resized
from seg_pruning.surgery.coupling import Keep
from seg_pruning.surgery.cut import Cut, put, take, unrepeated
from seg_pruning.surgery.entries import Site
from seg_pruning.surgery.graph import ChannelGraph
from seg_pruning.surgery.inputs import Inputs, flatten_tensors, map_tensors
from seg_pruning.surgery.labels import LabelSet
from seg_pruning.surgery.passes import eval_mode, repeatable, tensors_of
from seg_pruning.surgery.replay import DivergedError, Replay, replay
from seg_pruning.surgery.rules.attention import ATTENTION
from seg_pruning.surgery.untouched import untouched

TOLERANCE = 1e-4
"""Largest difference that passes, relative to the largest magnitude of the output: float32 rounds."""

ROUNDING = 0.1
"""Differences up to this may be rounding, which deep networks amplify: they are looked at in float64."""

Form: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Certificate:
    """What a comparison found.

    Attributes:
        max_error: the largest difference, relative to the largest magnitude of the output.
        failure: the error of a network that did not run; empty where both ran.
    """

    max_error: float
    failure: str = ""

    @property
    def passed(self) -> bool:
        """Whether the two networks answer alike."""
        return not self.failure and self.max_error <= TOLERANCE

    @property
    def doubtful(self) -> bool:
        """Whether rounding may be all that is wrong, which double precision tells."""
        return not (self.passed or self.failure or self.max_error > ROUNDING)


def certify(
    model: nn.Module,
    graph: ChannelGraph,
    cut: Cut,
    inputs: Inputs,
    tensors: Mapping[str, Tensor] | None = None,
) -> Certificate:
    """Compares the masked original with the pruned network; `model` itself is not changed.

    Args:
        model: the network before the cut.
        graph: its graph.
        cut: what is to be removed.
        inputs: what it is called with.
        tensors: values to use for its parameters and buffers; its own by default. Half precision is raised
            to float32; where that leaves a doubt, all is computed again in float64.
    """
    own = tensors or tensors_of(model)
    found = _compared(model, graph, cut, inputs, own, raised)
    finer = _compared(model, graph, cut, inputs, own, doubled) if found.doubtful else found
    return found if finer.failure else finer


def _compared(
    model: nn.Module,
    graph: ChannelGraph,
    cut: Cut,
    inputs: Inputs,
    tensors: Mapping[str, Tensor],
    form: Form,
) -> Certificate:
    values, small = Formed(tensors, form), inputs.map(form)
    try:
        with untouched(model):
            masked = masked_output(model, graph, cut, small, values)
            pruned = pruned_output(model, cut, small, values)
    except DivergedError as error:
        if form is raised:
            raise
        return Certificate(float("inf"), str(error))
    except Exception as error:
        return Certificate(float("inf"), f"{type(error).__name__}: {error}")
    return Certificate(difference(masked, pruned))


def raised(tensor: Tensor) -> Tensor:
    """`tensor` without gradient, half precision as float32: halves are too coarse to prove anything."""
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    return tensor.detach().float() if half else tensor.detach()


def doubled(tensor: Tensor) -> Tensor:
    """`tensor` without gradient, in double precision if it is a floating one."""
    return tensor.detach().double() if tensor.is_floating_point() else tensor.detach()


class Formed(Mapping[str, Tensor]):
    """Tensors in a finer form, one by one as they are asked for: never two copies of all."""

    def __init__(self, tensors: Mapping[str, Tensor], form: Form) -> None:
        self._tensors = tensors
        self._form = form

    @override
    def __getitem__(self, name: str) -> Tensor:
        return self._form(self._tensors[name])

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    @override
    def __len__(self) -> int:
        return len(self._tensors)


def difference(expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    """The largest difference of two outputs, relative to each tensor's largest; inf if shapes differ."""
    if [t.shape for t in expected] != [t.shape for t in got]:
        return float("inf")
    worst = 0.0
    for a, b in zip(expected, got, strict=True):
        if a.numel() == 0:
            continue
        x, y = a.double(), b.double()
        gap = (x - y).abs().max().item()
        scale = x.abs().max().item()
        error = 0.0 if gap == 0.0 else gap / scale if scale else float("inf")
        worst = max(worst, error if np.isfinite(error) else float("inf"))
    return worst


def pruned_output(model: nn.Module, cut: Cut, inputs: Inputs, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """What the network answers once cut, computed with cut copies of `tensors`."""
    small = {name: cut.tensor(name, t) for name, t in tensors.items()}
    with eval_mode(model), repeatable(), resized(model, cut):
        return flatten_tensors(functional_call(model, small, inputs.args, dict(inputs.kwargs)))


def masked_output(
    model: nn.Module, graph: ChannelGraph, cut: Cut, inputs: Inputs, tensors: Mapping[str, Tensor]
) -> list[Tensor]:
    """What the dense network answers with every removed element set to zero."""
    masked = {name: _zeroed(t, cut.masks[name]) if name in cut.masks else t for name, t in tensors.items()}
    return replay(model, inputs, masked, _MaskedSites(graph, graph.keep(cut.plan)))


def _zeroed(tensor: Tensor, mask: Tensor) -> Tensor:
    """`tensor` with zeros where `mask` is False, laid out alike: strides decide which kernels torch takes."""
    stays = unrepeated(mask).to(tensor.device)
    product = torch.mul(tensor, stays, out=torch.empty_like(tensor))  # faster than filling
    return product if product.sum().isfinite() else tensor.clone().masked_fill_(~stays, 0)


def _mask(labels: LabelSet, keep: Keep, shape: Sequence[int]) -> Tensor:
    mask = np.ones((1,) * len(shape), dtype=bool)
    for array in labels:
        mask = mask & keep[array]
    return torch.from_numpy(mask).expand(tuple(shape))


class _MaskedSites(Replay):  # type: ignore[no-untyped-call]
    """Runs the ops that mix channels on the kept ones, and puts zeros where the others were."""

    def __init__(self, graph: ChannelGraph, keep: Keep) -> None:
        super().__init__(graph.trace.ops)
        self.sites = graph.trace.sites
        self.keep = keep

    @override
    def run(self, at: int, func: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The op on what is kept, where it mixes channels some of which are removed."""
        site = self.sites.get(at)
        if site is None or all(self.keep[a].all() for labels in site.inputs for a in labels):
            return func(*args, **kwargs)
        return self._over_kept(site, func, args, kwargs)

    def _over_kept(
        self, site: Site, func: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        labels = iter(site.inputs)
        small_args, small_kwargs = map_tensors(
            (args, kwargs), lambda t: take(t, _mask(next(labels), self.keep, t.shape))
        )
        fitting = _fit(func, args, small_args, lambda x: _mask(site.inputs[0], self.keep, x.shape))
        small = flatten_tensors(_call(func, fitting, small_kwargs, wide=args))
        wide = func(*args, **kwargs)  # for its shapes and strides
        spread = map(self._spread, small, flatten_tensors(wide), site.outputs)
        return map_tensors(wide, lambda _: next(spread))

    def _spread(self, small: Tensor, wide: Tensor, labels: LabelSet) -> Tensor:
        if not labels:
            return small
        return put(torch.zeros_like(wide), _mask(labels, self.keep, wide.shape), small)


def _call(
    func: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], *, wide: tuple[Any, ...]
) -> object:
    """What the op answers; fused attention takes the scale of the dense network, and any kernel that fits."""
    if func.overloadpacket not in ATTENTION:
        return func(*args, **kwargs)
    given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    q, k, v = (given[name] for name in ("query", "key", "value"))
    mask, causal = given.get("attn_mask", given.get("attn_bias")), given.get("is_causal", False)
    scale = given.get("scale") or wide[0].shape[-1] ** -0.5
    out = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale)
    return (out, *(torch.empty(0, device=out.device) for _ in func._schema.returns[1:]))


def _fit(
    func: torch._ops.OpOverload,
    args: tuple[Any, ...],
    small: tuple[Any, ...],
    mask: Callable[[Tensor], Tensor],
) -> tuple[Any, ...]:
    """The plain ints of a norm's arguments, made to fit what `mask` keeps of its input."""
    packet = func.overloadpacket
    if packet is torch.ops.aten.native_layer_norm:
        x = small[0]
        return (x, tuple(x.shape[x.ndim - len(args[1]) :]), *small[2:])
    if packet is torch.ops.aten.native_group_norm:
        channels = mask(args[0]).movedim(1, 0).flatten(1).any(1)
        groups = int(channels.reshape(args[6], -1).any(1).sum())
        return (*small[:4], small[0].shape[1], args[5], groups, *small[7:])
    return small
