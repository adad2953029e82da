"""How much each group alone can lose: one group cut at a time, at several ratios, and the metric looked at.

Li et al. 2017, "Pruning Filters for Efficient ConvNets" (https://arxiv.org/abs/1608.08710), section 3.2.

Each point is a real cut, made in place and taken back. That copies the tensors that the cut touches and no
others, works where a network cannot be copied, and what is judged runs at its reduced width, as a pruned
network does. A masked run would compute at full width, op by op wherever channels are mixed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor, nn

from seg_pruning.profiling.inference import cut_for_now, evaluating
from seg_pruning.profiling.latency import Progress
from seg_pruning.pruning import criteria
from seg_pruning.pruning.criteria import Criterion
from seg_pruning.pruning.protection import names_of, protected
from seg_pruning.pruning.score import Loss, Scores, score
from seg_pruning.pruning.sensitivity_record import SensitivityRecord, SensitivityRow
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.passes import tensors_of
from seg_pruning.surgery.plan import Plan

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGraph, ChannelGroup

Evaluate: TypeAlias = Callable[[nn.Module], float]
"""Gives the metric of a network, the same each time for the same network."""

Mode: TypeAlias = Literal["max", "min"]

RATIOS = (0.25, 0.5, 0.75, 0.9)


def sensitivity(
    graph: ChannelGraph,
    model: nn.Module,
    evaluate: Evaluate,
    *,
    criterion: str | Criterion = "l2",
    ratios: Sequence[float] = RATIOS,
    mode: Mode = "max",
    protect: Iterable[str] = (),
    data: Iterable[object] | None = None,
    loss: Loss | None = None,
    record: SensitivityRecord | None = None,
    progress: Progress | None = None,
) -> Iterator[SensitivityRow]:
    """Cuts each prunable group alone at each ratio, and gives the metric of each network as it is measured.

    The channels of a group leave in the order of the criterion's scores on the whole network, low ones first.
    `model` is whole again whenever a row is given, whatever happens: also when `evaluate` fails.

    Args:
        graph: the groups, traced from `model`.
        model: the network.
        evaluate: gives the metric of a network; gets `model` itself, cut and in eval mode. It may move it or
            recalibrate its norms, which is undone, but not train its parameters.
        criterion: a name or a criterion.
        ratios: shares of a group to remove, each in (0, 1).
        mode: whether a higher ("max") or a lower ("min") metric is better.
        protect: names of groups, layers or modules, or patterns, that are not cut.
        data: for criteria that need it, as in `score`.
        loss: called with output and target, for criteria that need it.
        record: a file to which each row is written at once, and whose rows are given again, not measured.
        progress: called with the points done and the points in all.

    Returns:
        Rows in the order of the graph, then of the ratios, fewest removed first.

    Raises:
        PruningError: a ratio, a mode or a name is illegal, `criterion` lacks what it needs, or the
            record is of something else; at the first row, the metric of the whole network is not finite.

    Example:
        >>> import seg_pruning as sp
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 1))
        >>> graph = sp.trace(net, torch.randn(1, 3, 8, 8))
        >>> [row.kept for row in sensitivity(graph, net, lambda cut: cut[0].out_channels / 4)]
        [3, 2, 1, 1]
    """
    asked, chosen = check_ratios(ratios), criteria.get(criterion)
    if mode not in get_args(Mode):
        raise PruningError(f"expected mode to be one of {get_args(Mode)}, but got {mode!r}")
    if record is not None:
        network = network_digest(graph, model)
        record.open({"network": network, "criterion": described(chosen), "mode": mode})
    whole = protected(graph, names_of(protect))
    scores = score(graph, model, chosen, data=data, loss=loss, unread=whole)
    groups = [group for group in graph.prunable if group.name not in whole]
    meter = _Meter(graph, model, evaluate, {group.name: _order(group, scores) for group in groups})
    return _rows(meter, asked, mode, record, progress)


def check_ratios(ratios: Sequence[float]) -> tuple[float, ...]:
    """The ratios, each once, ascending.

    Raises:
        PruningError: there are none, or one is no share in (0, 1).

    Example:
        >>> check_ratios([0.5, 0.25])
        (0.25, 0.5)
    """
    wrong = [ratio for ratio in ratios if not 0 < ratio < 1]
    if wrong or not ratios:
        raise PruningError(
            "expected ratios to be shares of a group to remove, each above 0 and below 1, but got "
            f"{(wrong or list(ratios))[:10]}; give such as (0.25, 0.5, 0.75)"
        )
    return tuple(sorted({float(ratio) for ratio in ratios}))


def width_kept(group: ChannelGroup, ratio: float) -> int:
    """Channels of `group` that stay when the share `ratio` is to go: the nearest legal width not below."""
    columns = group.size // group.step
    # Rounded first: 0.29 * 100 is a hair below 29, and 29 are meant.
    gone = math.floor(round(ratio * columns, 6))
    return group.size - min(gone, columns - 1) * group.step


def network_digest(graph: ChannelGraph, model: nn.Module) -> str:
    """A short name of a network, which changes with its weights, its widths and its groups."""
    digest = hashlib.sha256()
    for group in graph.prunable:
        digest.update(f"{group.name}/{group.size}/{group.step};".encode())
    for name, tensor in tensors_of(model).items():
        digest.update(name.encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()[:16]


def tensor_bytes(tensor: Tensor) -> bytes:
    """The dtype, the shape and the values of a tensor, wherever and however it lies in memory."""
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{tensor.dtype}{tuple(tensor.shape)}".encode() + values


def described(criterion: Criterion) -> str:
    """A criterion with its settings in words.

    Example:
        >>> described(criteria.get("l2"))
        'L2(members=all, reduce=sum)'
    """
    settings = ", ".join(f"{name}={value}" for name, value in sorted(vars(criterion).items()))
    return f"{type(criterion).__name__}({settings})"


@dataclass(frozen=True)
class _Meter:
    """Measures the network with one group cut; a width that was measured before is not measured again."""

    graph: ChannelGraph
    model: nn.Module
    evaluate: Evaluate
    orders: Mapping[str, Sequence[Sequence[int]]]
    found: dict[tuple[str, int], float] = field(default_factory=dict)

    def dense(self) -> float:
        """The metric of the whole network."""
        metric = self._evaluate(Plan({}, {}))
        if not math.isfinite(metric):
            raise PruningError(
                f"the metric of the whole network is {metric}: there is nothing to compare with; "
                "choose a metric that is a number on this data"
            )
        return metric

    def metric(self, group: ChannelGroup, kept: int) -> float:
        """The metric with `kept` channels of `group`."""
        key = (group.name, kept)
        if key not in self.found:
            steps = self.orders[group.name][(group.size - kept) // group.step :]
            channels = sorted(channel for step in steps for channel in step)
            self.found[key] = self._evaluate(Plan({group.name: tuple(channels)}, {group.name: group.size}))
        return self.found[key]

    def _evaluate(self, plan: Plan) -> float:
        with cut_for_now(self.model, self.graph.cut(plan)), evaluating(self.model):
            return float(self.evaluate(self.model))


def _rows(
    meter: _Meter,
    ratios: Sequence[float],
    mode: Mode,
    record: SensitivityRecord | None,
    progress: Progress | None,
) -> Iterator[SensitivityRow]:
    groups = [group for group in meter.graph.prunable if group.name in meter.orders]
    whole = meter.dense() if record is None or record.dense is None else record.dense
    meter.found.update({(group.name, group.size): whole for group in groups})
    meter.found.update({(row.group, row.kept): row.metric for row in (record.rows if record else ())})
    for done, (group, ratio) in enumerate(product(groups, ratios)):
        row = _row(meter, group, ratio, whole, mode)
        if record is not None:
            record.add(row, dense=whole)
        if progress is not None:
            progress(done + 1, len(groups) * len(ratios))
        yield row


def _row(meter: _Meter, group: ChannelGroup, ratio: float, whole: float, mode: Mode) -> SensitivityRow:
    kept = width_kept(group, ratio)
    widths = np.array(
        [kept if each is group else each.size for each in meter.graph.prunable], dtype=np.float64
    )
    costs = meter.graph.costs
    metric = meter.metric(group, kept)
    drop = whole - metric if mode == "max" else metric - whole
    return SensitivityRow(
        group.name, group.size, ratio, kept, costs.params(widths), costs.macs(widths), metric, drop
    )


def _order(group: ChannelGroup, scores: Scores) -> list[list[int]]:
    """The channels that leave at each step, one of each block, the least important first."""
    values = scores[group.name].detach().double().cpu().numpy()
    rows = np.array(group.rows, dtype=np.int64)
    ranked = np.take_along_axis(rows, np.argsort(values[rows], axis=1, kind="stable"), axis=1)
    order: list[list[int]] = ranked.T.tolist()
    return order
