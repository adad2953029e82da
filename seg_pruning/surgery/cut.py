"""A plan as keep masks, one for each tensor; pure: nothing here touches a network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.sizes import Attribute
from seg_pruning.surgery.trace import Trace

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGraph


@dataclass(frozen=True)
class Cut:
    """What a plan does to a network, as data.

    Attributes:
        plan: what was decided.
        masks: for each tensor that changes, a bool tensor of its dense shape: True stays.
        sizes: the new value of each attribute that changes.
        dropped: modules that go as a whole.
    """

    plan: Plan
    masks: Mapping[str, Tensor]
    sizes: Mapping[Attribute, int]
    dropped: tuple[str, ...]


def take(tensor: Tensor, mask: Tensor) -> Tensor:
    """The elements of `tensor` that stay, as a tensor of as many dims, in the memory format of `tensor`.

    The kept elements must form a rectangle, else PruningError.

    >>> take(torch.arange(6).reshape(2, 3), torch.tensor([[True, False, True]] * 2))
    tensor([[0, 2],
            [3, 5]])
    """
    kept = tensor[mask.to(tensor.device)].reshape(kept_shape(mask))
    if (
        tensor.ndim == 4
        and tensor.is_contiguous(memory_format=torch.channels_last)
        and not tensor.is_contiguous()
    ):
        return kept.contiguous(memory_format=torch.channels_last)
    return kept


def kept_shape(mask: Tensor) -> tuple[int, ...]:
    """The shape of what a mask keeps.

    Raises:
        PruningError: the kept elements do not form a rectangle.
    """
    total = int(mask.sum())
    shape = []
    for dim in range(mask.ndim):
        lines = mask.movedim(dim, 0).reshape(mask.shape[dim], -1).any(1)
        shape.append(int(lines.sum()))
    if int(np.prod(shape)) != total:
        # Blocks of a joint dim keep different indices: the width is the number in each line, not the union.
        shape = _ragged_shape(mask, total)
    return tuple(shape)


def _ragged_shape(mask: Tensor, total: int) -> list[int]:
    lines = mask.reshape(mask.shape[0], mask.shape[1], -1) if mask.ndim > 1 else mask.reshape(1, 1, -1)
    alive = lines.any(2)
    rows = int(alive.any(1).sum())
    counts = set(alive.sum(1).tolist()) - {0}
    rest = list(kept_shape(mask[alive][0])) if mask.ndim > 2 else []
    if len(counts) != 1 or rows * counts.copy().pop() * int(np.prod(rest)) != total:
        raise PruningError(
            f"the cut would leave a ragged tensor of shape {tuple(mask.shape)} with {total} elements"
        )
    return [rows, counts.pop(), *rest]


def plan_cut(graph: "ChannelGraph", plan: Plan) -> Cut:
    """The masks, sizes and modules that `plan` changes; pure.

    Raises:
        PruningError: the plan does not fit the graph, drops a module that is not there or that runs, or an
            attribute would need two values.
    """
    keep = graph.keep(plan)
    _check_dropped(graph, plan.dropped)
    masks = {name: mask for name, mask in _masks(graph.trace, keep).items() if not bool(mask.all())}
    return Cut(plan, masks, _sizes(graph.trace, keep), plan.dropped)


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


def _masks(trace: Trace, keep: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> dict[str, Tensor]:
    masks: dict[str, Tensor] = {}
    for mint in trace.mints:
        part = torch.from_numpy(keep[mint.labels])
        if not bool(part.all()):
            whole = masks.get(mint.tensor, torch.ones(trace.shapes[mint.tensor], dtype=torch.bool))
            masks[mint.tensor] = whole & part
    return masks


def _sizes(trace: Trace, keep: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> dict[Attribute, int]:
    """The value that each demanded attribute takes, for those that change."""
    sizes: dict[Attribute, int] = {}
    changed: set[Attribute] = set()
    for demand in trace.demands:
        value = int(keep[demand.labels].sum())
        if value == 0:
            raise PruningError(
                f"the plan keeps no channel of an axis that {demand.attribute} sizes; keep 1 or more"
            )
        if sizes.setdefault(demand.attribute, value) != value:
            raise PruningError(
                f"the attribute {demand.attribute} would have to be {sizes[demand.attribute]} and {value} "
                "at once"
            )
        if value != demand.labels.size:
            changed.add(demand.attribute)
    return {attribute: sizes[attribute] for attribute in sorted(changed)}
