"""A plan as keep masks, one for each tensor; pure: nothing here touches a network."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from seg_pruning.surgery.coupling import Keep, solve, value_of
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.expressions import Attribute
from seg_pruning.surgery.labels import LabelArray, kept_extents
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trace import Trace

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGraph


@dataclass(frozen=True)
class Cut:
    """What a plan does to a network, as data.

    Attributes:
        plan: what was decided.
        masks: for each tensor that changes, a bool tensor of its dense shape: True stays. It is a view that
            holds each dim along which nothing leaves once, so that it is not to be written into. Of a tensor
            that is only scaled all stays.
        sizes: the new value of each attribute that changes.
        dropped: modules that go as a whole.
        scales: factors of some parameters, broadcastable to their dense shape: where attention takes its
            scale from a width that changes, its queries are scaled so that nothing else does.
    """

    plan: Plan
    masks: Mapping[str, Tensor]
    sizes: Mapping[Attribute, int]
    dropped: tuple[str, ...]
    scales: Mapping[str, Tensor] = field(default_factory=dict)

    def tensor(self, name: str, tensor: Tensor, *, gradient: bool = False) -> Tensor:
        """What is left of the parameter or buffer called `name`, or of its gradient."""
        kept = take(tensor, self.masks[name]) if name in self.masks else tensor
        if name not in self.scales:
            return kept
        factor = take(self.scales[name].expand(self.masks[name].shape), self.masks[name]).to(kept)
        return kept / factor if gradient else kept * factor

    def below(self, path: str) -> "Cut":
        """What the cut does to the submodule at `path`, in its own names; "" is the network itself."""
        if not path:
            return self
        prefix = f"{path}."
        sizes = {
            replace(a, module=a.module.removeprefix(path).removeprefix(".")): size
            for a, size in self.sizes.items()
            if f"{a.module}.".startswith(prefix)
        }
        masks, scales = (
            {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}
            for named in (self.masks, self.scales)
        )
        part = self.plan.below(path)
        return Cut(part, masks, sizes, part.dropped, scales)


def take(tensor: Tensor, mask: Tensor) -> Tensor:
    """The elements of `tensor` that stay, as a tensor of as many dims, in the memory format of `tensor`.

    Raises:
        PruningError: the kept elements do not form a rectangle.

    Example:
        >>> take(torch.arange(6).reshape(2, 3), torch.tensor([[True, False, True]] * 2))
        tensor([[0, 2],
                [3, 5]])
    """
    shape, ragged = _kept(mask)
    kept = _lines(tensor, mask, shape, ragged) if ragged else _rectangle(tensor, mask)
    wanted = memory_format_of(tensor)
    return kept if wanted == torch.contiguous_format else kept.contiguous(memory_format=wanted)


def memory_format_of(tensor: Tensor) -> torch.memory_format:
    """Channels last where a tensor is laid out so, of images or of volumes; contiguous otherwise.

    Example:
        >>> memory_format_of(torch.zeros(2, 3, 4, 4).contiguous(memory_format=torch.channels_last))
        torch.channels_last
    """
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.ndim)
    if last is None or tensor.is_contiguous() or not tensor.is_contiguous(memory_format=last):
        return torch.contiguous_format
    return last


def _rectangle(tensor: Tensor, mask: Tensor) -> Tensor:
    # Dim by dim: indexing by a mask would make 8 bytes for each dim of each element.
    kept, once = tensor, unrepeated(mask)
    for dim in (d for d, size in enumerate(once.shape) if size > 1):
        line = once.movedim(dim, 0).reshape(once.shape[dim], -1).any(1)
        if not bool(line.all()):
            kept = kept.index_select(dim, line.nonzero().squeeze(1).to(tensor.device))
    return kept.clone() if kept is tensor else kept


def _lines(tensor: Tensor, mask: Tensor, shape: tuple[int, ...], ragged: tuple[int, ...]) -> Tensor:
    order, index = _order(mask, ragged)  # the elements of each line have to stand side by side
    back = [order.index(d) for d in range(mask.ndim)]
    kept = tensor.permute(order)[(..., index.to(tensor.device))]
    return kept.reshape([shape[d] for d in order]).permute(back).contiguous()


def put(full: Tensor, mask: Tensor, kept: Tensor) -> Tensor:
    """`full` with `kept`, as `take` gives it, written back where `mask` keeps it."""
    order, index = _order(mask, _kept(mask)[1])
    whole = [full.shape[d] for d in order[: mask.ndim - index.ndim]]
    full.permute(order)[(..., index.to(full.device))] = kept.permute(order).reshape(*whole, -1)
    return full


def _order(mask: Tensor, ragged: Sequence[int]) -> tuple[list[int], Tensor]:
    """The order of dims with those that stay whole first and `ragged` last, and the mask of the others."""
    once = unrepeated(mask)
    whole = [d for d, size in enumerate(once.shape) if size == 1]
    rest = [d for d in range(mask.ndim) if d not in whole and d not in ragged]
    order = [*whole, *rest, *ragged]
    return order, once.permute(order).reshape([once.shape[d] for d in order[len(whole) :]])


def unrepeated(mask: Tensor) -> Tensor:
    """`mask` with size 1 where it only repeats itself, as a view that was expanded does.

    Example:
        >>> unrepeated(torch.tensor([[True], [False]]).expand(2, 5)).shape
        torch.Size([2, 1])
    """
    return mask[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in mask.stride())]


def kept_shape(mask: Tensor) -> tuple[int, ...]:
    """The shape of what a mask keeps.

    Raises:
        PruningError: the kept elements do not form a rectangle.
    """
    return _kept(mask)[0]


def _kept(mask: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    once = unrepeated(mask)
    found = kept_extents(once.numpy())
    if found is None:
        raise PruningError(
            f"the cut would leave a ragged tensor: {int(mask.sum())} elements of shape {tuple(mask.shape)}"
        )
    lengths, ragged = found
    sizes = zip(lengths, once.shape, mask.shape, strict=True)
    return tuple(length * size if own == 1 else length for length, own, size in sizes), ragged


def plan_cut(graph: "ChannelGraph", plan: Plan) -> Cut:
    """The masks, sizes and modules that `plan` changes; pure.

    Raises:
        PruningError: the plan does not fit the graph, drops a module that is not there or that runs, or an
            attribute would need two values.
    """
    keep = graph.keep(plan)
    _check_dropped(graph, plan.dropped)
    sizes = solve((*graph.trace.fits, *graph.branch_fits), graph.trace.sizes, keep)
    scales = _scales(graph.trace, keep, sizes)
    whole = {name: torch.ones(graph.trace.shapes[name], dtype=torch.bool) for name in scales}
    return Cut(plan, {**whole, **_masks(graph.trace, keep)}, sizes, plan.dropped, scales)


def _check_dropped(graph: "ChannelGraph", paths: tuple[str, ...]) -> None:
    idle = set(graph.idle)
    for path in paths:
        held = [name for name in graph.trace.parameters if name.startswith(f"{path}.")]
        if not held:
            raise PruningError(f"the plan drops {path!r}, which is no module with parameters of this network")
        if running := [name for name in held if name not in idle]:
            raise PruningError(
                f"the plan drops {path!r}, which runs: it reads {', '.join(running[:10])}. Drop only "
                "modules whose every parameter is in graph.idle"
            )


def _masks(trace: Trace, keep: Keep) -> dict[str, Tensor]:
    masks: dict[str, Tensor] = {}
    for mint in trace.mints:
        part = torch.from_numpy(keep[mint.labels])
        if not bool(part.all()):
            masks[mint.tensor] = masks[mint.tensor] & part if mint.tensor in masks else part
    return {name: mask.expand(trace.shapes[name]) for name, mask in masks.items()}


def _scales(trace: Trace, keep: Keep, sizes: Mapping[Attribute, int]) -> dict[str, Tensor]:
    """What makes up for the scales of attention whose queries lose width, or whose size is rewritten."""
    scales: dict[str, Tensor] = {}
    for queries, factor in (*_fused(trace, keep), *_computed(trace, keep, sizes)):
        made = _with_what_was_added(trace, queries)
        for mint in trace.mints:
            if mint.tensor in trace.parameter_set and (inside := np.isin(mint.labels, made)).any():
                before = scales.get(mint.tensor, torch.ones((), dtype=torch.float64))
                scales[mint.tensor] = torch.where(torch.from_numpy(inside), factor, before)
    return scales


def _fused(trace: Trace, keep: Keep) -> Iterator[tuple[LabelArray, float]]:
    """The queries of fused attention that lose width, and their factor."""
    for number in trace.scales.follows:
        queries = trace.scales.scaled[number][0]
        lengths = kept_extents(keep[queries])
        if lengths is not None and lengths[0][-1] != queries.shape[-1]:
            yield queries, (lengths[0][-1] / queries.shape[-1]) ** 0.5


def _computed(trace: Trace, keep: Keep, sizes: Mapping[Attribute, int]) -> Iterator[tuple[LabelArray, float]]:
    """What is scaled by the root of a size that changes, and its factor."""
    everything = np.ones_like(keep)
    for root in trace.scales.roots:
        old = value_of(root.size, trace.sizes, everything)
        new = value_of(root.size, {**trace.sizes, **sizes}, keep)
        if root.queries and new != old:
            yield root.queries[0], (new / old) ** -root.power


def _with_what_was_added(trace: Trace, queries: LabelArray) -> LabelArray:
    """The labels of `queries`, and of the biases that were added to them."""
    made = queries.reshape(-1)
    for sum_, added in trace.scales.sums:
        made = np.concatenate([made, added[np.isin(sum_, made)]])
    return made
