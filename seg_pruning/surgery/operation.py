"""A certified cut: planned, written, proved, or rolled back."""

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.func import functional_call
from torch.optim import Optimizer

from seg_pruning.surgery.apply import Journal, commit_
from seg_pruning.surgery.certificate import (
    TOLERANCE,
    Certificate,
    Form,
    Formed,
    certify,
    difference,
    doubled,
    masked_output,
    raised,
)
from seg_pruning.surgery.cut import Cut, plan_cut
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.graph import ChannelGraph
from seg_pruning.surgery.inputs import Inputs, flatten_tensors
from seg_pruning.surgery.note import remember_, structure_of
from seg_pruning.surgery.passes import eval_mode, repeatable, tensors_of
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.structure import Structure
from seg_pruning.surgery.untouched import untouched


@dataclass(frozen=True)
class Operation:
    """What was done: the cut, and its largest relative error against the masked original."""

    cut: Cut
    max_error: float


def operate_(
    model: nn.Module,
    graph: ChannelGraph,
    plan: Plan,
    inputs: Inputs,
    *,
    optimizers: tuple[Optimizer, ...] = (),
) -> Operation:
    """Cuts `model` by `plan`, proves that it answers like the masked original, or leaves all as it was.

    Args:
        model: the network, in any mode; modes, flags, hooks and parameter identity survive.
        graph: its graph.
        plan: what is kept.
        inputs: what the two networks are compared on.
        optimizers: optimizers whose state is cut too.

    Raises:
        PruningError: the plan does not fit, an optimizer's state cannot be carried, or the pruned network
            does not answer like the masked original; the message names the groups.
    """
    cut = plan_cut(graph, plan)
    for form in (raised, doubled):
        expected = _expected(model, graph, cut, inputs, form)
        with Journal() as journal:
            commit_(journal, model, cut, optimizers=optimizers, max_error=0.0)
            found = _found_now(model, inputs, expected, form)
            if found.passed:
                _note_error(journal, model, found.max_error)
                return Operation(cut, found.max_error)
            journal.roll_back()
        if not found.doubtful:
            break
    why = found.failure or f"relative error {found.max_error:.1e} > {TOLERANCE:.0e}"
    raise PruningError(_refusal(model, graph, plan, inputs, why))


def _expected(
    model: nn.Module, graph: ChannelGraph, cut: Cut, inputs: Inputs, form: Form
) -> list[torch.Tensor]:
    """What the masked original answers."""
    with untouched(model):
        expected = masked_output(model, graph, cut, inputs.map(form), Formed(tensors_of(model), form))
    if not all(bool(torch.isfinite(t).all()) for t in expected):
        raise PruningError(
            "the network's output on the example inputs is not finite: nothing can be proved about a cut; "
            "look for weights, buffers or inputs that are not finite"
        )
    return expected


def _found_now(model: nn.Module, inputs: Inputs, expected: list[torch.Tensor], form: Form) -> Certificate:
    small = inputs.map(form)
    values = dict(Formed(tensors_of(model), form))
    try:
        with untouched(model), eval_mode(model), repeatable():
            got = flatten_tensors(functional_call(model, values, small.args, dict(small.kwargs)))
    except Exception as error:
        return Certificate(float("inf"), f"{type(error).__name__}: {error}")
    return Certificate(difference(expected, got))


def _note_error(journal: Journal, model: nn.Module, error: float) -> None:
    before = structure_of(model)
    structure = before or Structure()
    worst = None if structure.max_error is None else max(structure.max_error, error)
    after = replace(structure, max_error=worst)
    journal.write(lambda: remember_(model, after), lambda: remember_(model, before))


def _refusal(model: nn.Module, graph: ChannelGraph, plan: Plan, inputs: Inputs, why: str) -> str:
    guilty = _blame(model, graph, plan, inputs, tuple(plan.kept))
    text = f"the pruned network does not answer like the masked original ({why}); it was rolled back. "
    if not guilty and plan.dropped:
        return (
            f"{text}The modules that were dropped with it are the likely cause: "
            f"{', '.join(plan.dropped[:10])}. Keep them with dead=False"
        )
    return (
        f"{text}Groups that cause it: {', '.join(guilty[:10]) or 'only all of them together'}. "
        "Protect them with protect=(...)"
    )


def _blame(
    model: nn.Module, graph: ChannelGraph, plan: Plan, inputs: Inputs, names: tuple[str, ...]
) -> tuple[str, ...]:
    """The groups whose part of the plan breaks the network by itself."""
    part = Plan({n: plan.kept[n] for n in names}, {n: plan.sizes[n] for n in names})
    certificate = certify(model, graph, plan_cut(graph, part), inputs)
    if certificate.passed or not names:
        return ()
    if len(names) == 1:
        return names
    middle = len(names) // 2
    return _blame(model, graph, plan, inputs, names[:middle]) + _blame(
        model, graph, plan, inputs, names[middle:]
    )
