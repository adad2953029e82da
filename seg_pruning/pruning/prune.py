"""Trace, score, select, cut, certify: one call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from torch import nn
from torch.optim import Optimizer

from seg_pruning.profiling import Cost, LatencyModel, Target, cost, latency_of, peak_memory
from seg_pruning.profiling import latency as measure
from seg_pruning.profiling.inference import device_of, dtype_of
from seg_pruning.pruning import criteria
from seg_pruning.pruning.amounts import Amounts, Meter, Spent, amounts, spent
from seg_pruning.pruning.batches import read_batches
from seg_pruning.pruning.budgets import Budget
from seg_pruning.pruning.compensation import compensate_, compensation
from seg_pruning.pruning.criteria import Criterion
from seg_pruning.pruning.protection import names_of, protected
from seg_pruning.pruning.recalibration import recalibrate_, tracking_norms
from seg_pruning.pruning.score import Loss, Scores, score
from seg_pruning.pruning.selection import RoundTo, Scope, Selection, check_reachable, select
from seg_pruning.pruning.timed import select_timed
from seg_pruning.surgery.cut import Cut
from seg_pruning.surgery.dead import dead_modules
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.graph import ChannelGraph
from seg_pruning.surgery.inputs import ExampleInputs, Inputs
from seg_pruning.surgery.operation import Operation, operate_
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace


@dataclass(frozen=True)
class PruneResult:
    """What was done to a network.

    Attributes:
        before: params and MACs of the dense network, and its latency where the budget has one.
        after: the same of the pruned one, counted and measured on it.
        plan: the kept channels of each group that was cut.
        cut: the same as keep masks, one for each tensor that changed.
        max_error: the certificate: largest difference between masked original and pruned network, relative
            to the largest magnitude of the output.
        spent: of each amount in the budget what was asked, predicted and got.
    """

    before: Cost
    after: Cost
    plan: Plan
    cut: Cut
    max_error: float
    spent: Mapping[str, Spent]


def prune_(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    budget: Mapping[str, float] | Budget,
    criterion: str | Criterion = "l2",
    scope: Scope = "global",
    protect: Iterable[str] = (),
    round_to: RoundTo = "auto",
    optimizers: Iterable[Optimizer] = (),
    dead: bool = True,
    data: Iterable[object] | None = None,
    loss: Loss | None = None,
    compensate: bool = False,
    selection: Selection | None = None,
    target: Target = Target(),  # noqa: B008 - frozen
) -> PruneResult:
    """Removes the least important channels of `model` in place until the budget holds: certified, or undone.

    Args:
        model: any module that runs, in any mode, on any device. Parameters stay the objects that they are.
        example_inputs: what it is called with: a tensor, a tuple of arguments or a dict of keyword arguments.
        budget: what is kept, as fractions of the dense network or as amounts; see `Budget`.
        criterion: a name (`"l2"`, `"taylor"`, ...) or a `Criterion`.
        scope: "global" ranks all channels together, "local" takes the same fraction of each group.
        protect: names of groups, layers or modules, or patterns such as `"head.*"`, that keep their width.
        round_to: widths stay multiples of this; "auto" is what pays on the device, see `Selection.resolved`.
        optimizers: their state is cut too.
        dead: drop modules that never run, in eval or in train mode.
        data: pairs of inputs and target, for criteria that need gradients; or inputs alone.
        loss: called with output and target, for criteria that need gradients.
        compensate: make up for the cut, once it is certified, on `data`: see `compensation`.
        selection: all options at once, in place of `scope`, `protect` and `round_to`.
        target: what a latency is meant for: threads, dtype and batch, on the device of `model`.

    Raises:
        PruningError: the network does not run or holds NaN, the budget or a name is illegal or out of reach,
            or the cut could not be certified. The network is then as it was.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 2, 1))
        >>> result = prune_(net, torch.randn(1, 3, 8, 8), budget={"params": 0.5})
        >>> net[0].out_channels, result.max_error < 1e-5
        (7, True)
    """
    options = _options(selection, scope, protect, round_to)
    wanted, chosen = Budget.of(budget), criteria.get(criterion)
    inputs = _checked(model, example_inputs, optimizers)
    seen = _seen(data) if compensate else []
    task = _Task.of(model, inputs, wanted, options, dead=dead, target=target)
    before = _cost(model, inputs, task.latency)
    whole = protected(task.graph, task.options.protect)
    scores = score(task.graph, model, chosen, data=seen or data, loss=loss, unread=whole)
    plan, predicted, got_ms = task.planned(scores)
    done = _operate_(model, task.graph, plan, inputs, tuple(optimizers), seen)
    after, memory = _cost(model, inputs, task.latency), peak_memory(model, inputs)
    got = replace(predicted, params=after.params, macs=after.macs, memory=memory, latency_ms=got_ms)
    told = spent(task.limit, predicted, got, wanted.names)
    return PruneResult(before, after, plan, done.cut, done.max_error, told)


@dataclass(frozen=True)
class _Task:
    """What is to be reached on a network, and what its graph says of it.

    Attributes:
        graph: traced from the network.
        options: of the selection, for its device.
        dropped: modules that never run.
        latency: where time matters.
        limit: what it may cost.
        dense_ms: the latency that a fraction is of, where one was asked for.
    """

    graph: ChannelGraph
    options: Selection
    dropped: tuple[str, ...]
    latency: LatencyModel | None
    limit: Amounts
    dense_ms: float | None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        inputs: Inputs,
        budget: Budget,
        selection: Selection,
        *,
        dead: bool,
        target: Target,
    ) -> _Task:
        """Traces `model`, and refuses a budget that cannot be reached: before scores, which may take long."""
        timed = budget.needs_latency or selection.per == "latency"
        dtype = target.torch_dtype if timed else dtype_of(model, inputs)
        options = selection.resolved(device_of(model, inputs), dtype, timed=timed)
        graph = trace(model, inputs)
        dropped = dead_modules(model, graph) if dead else ()
        latency = latency_of(graph, model, inputs, target, multiple=options.multiple) if timed else None
        dense = amounts(graph, latency=latency)
        limit = budget.limit(dense)
        check_reachable(graph, limit, options, dropped=dropped, latency=latency)
        return cls(
            graph, options, dropped, latency, limit, dense.latency_ms if budget.latency_ms is None else None
        )

    def planned(self, scores: Scores) -> tuple[Plan, Amounts, float | None]:
        """The plan, what it is foretold to cost, and its measured milliseconds where those are limited."""
        meter = Meter(self.graph, self.dropped, latency=self.latency)
        if self.limit.latency_ms is None or self.latency is None:
            plan = self._choose(scores, self.limit, self.latency)
            return plan, meter.read(meter.widths(plan)), None
        choose = partial(self._choose, scores)
        found = select_timed(choose, self.latency, self.limit, relative_to=self.dense_ms)
        foretold = meter.read(meter.widths(found.plan))
        return found.plan, replace(foretold, latency_ms=found.predicted), found.got

    def _choose(self, scores: Scores, limit: Amounts, latency: LatencyModel | None) -> Plan:
        return select(self.graph, scores, limit, self.options, dropped=self.dropped, latency=latency)


def _cost(model: nn.Module, inputs: Inputs, latency: LatencyModel | None) -> Cost:
    """What `model` costs now; its latency too, where time matters."""
    found = cost(model, inputs)
    if latency is None:
        return found
    timer = latency.timer
    with timer.running():
        return replace(found, latency=measure(model, timer.inputs, threads=timer.target.threads, runs=20))


def _seen(data: Iterable[object] | None) -> list[object]:
    """All of `data`, which is gone through several times."""
    found = list(data or ())
    if not found:
        raise PruningError(
            "compensate=True reads what passes through the network: give `data`, some batches of what it is "
            "called with, or pairs of that and a target"
        )
    return found


def _operate_(
    model: nn.Module,
    graph: ChannelGraph,
    plan: Plan,
    inputs: Inputs,
    optimizers: tuple[Optimizer, ...],
    seen: list[object],
) -> Operation:
    """The certified cut; then, where there is data, what makes up for it."""
    changes = compensation(model, graph.cut(plan), _calls(model, seen)) if seen else {}
    done = operate_(model, graph, plan, inputs, optimizers=optimizers)
    if seen:
        compensate_(model, done.cut, changes)
        recalibrate_(model, tracking_norms(model), _calls(model, seen))
    return done


def _calls(model: nn.Module, seen: Iterable[object]) -> Iterator[Inputs]:
    return (batch.inputs for batch in read_batches(seen, model, paired=False))


def _checked(model: nn.Module, example_inputs: ExampleInputs, optimizers: Iterable[Optimizer]) -> Inputs:
    """The inputs where `model` runs; refuses one optimizer in place of a list, and NaN."""
    if isinstance(optimizers, Optimizer):
        raise PruningError(f"expected optimizers to be a list, but got one {type(optimizers).__name__}: [it]")
    bad = [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()]
    if bad:
        raise PruningError(
            f"parameters hold values that are not finite: {', '.join(bad[:10])}; "
            "prune a checkpoint from before training diverged"
        )
    inputs = Inputs.of(example_inputs)
    return inputs.to(device=device_of(model, inputs))


def _options(
    selection: Selection | None, scope: Scope, protect: Iterable[str], round_to: RoundTo
) -> Selection:
    """The one `Selection` that the arguments of `prune_` mean."""
    single = Selection(scope=scope, protect=names_of(protect), round_to=round_to)
    if selection is not None and single != Selection():
        raise PruningError(
            "scope, protect and round_to cannot be given beside selection, which holds them too; "
            f"got {single} beside {selection}"
        )
    if selection is not None and not isinstance(selection, Selection):
        raise PruningError(f"expected selection to be a Selection(...), but got {selection!r}")
    return selection or single
