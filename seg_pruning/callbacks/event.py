"""One cut, told to loggers and to whoever watches."""

from collections.abc import Mapping
from dataclasses import dataclass

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info

from seg_pruning import tracking
from seg_pruning.pruning.budgets import Amounts


@dataclass(frozen=True)
class Event:
    """What a cut did.

    Attributes:
        part: what was cut, where several parts of a module are; empty where there is one.
        number: counted from 1.
        planned: how many cuts are planned; a floor on a metric may make it more or fewer.
        dense: amounts before the first cut.
        before: amounts before this one.
        after: amounts after it.
        budget: amounts that are wanted in the end.
        widths: of the groups that can still lose channels.
        max_error: the certificate; 0 where nothing had to leave.
    """

    part: str
    number: int
    planned: int
    dense: Amounts
    before: Amounts
    after: Amounts
    budget: Amounts
    widths: Mapping[str, int]
    max_error: float


def announce(trainer: L.Trainer, event: Event) -> None:
    """Logs a cut as `prune/...`, the width of each group included, and says it in one line."""
    dense, before, now, place = event.dense, event.before, event.after, _place(event.part)
    values = {
        "prune/step": event.number,
        f"{place}epoch": trainer.current_epoch,
        **costs(now, part=event.part),
        f"{place}max_error": event.max_error,
        **{f"{place}channels/{name}": width for name, width in event.widths.items()},
    }
    tracking.log_event(trainer, values)
    show(trainer, values)
    rank_zero_info(
        f"pruned {f'{event.part} ' if event.part else ''}at epoch {trainer.current_epoch} "
        f"({event.number} of {event.planned}): "
        f"{before.channels - now.channels} channels removed; "
        f"params {before.params:,} -> {now.params:,} ({now.params / dense.params:.1%} of dense), "
        f"MACs {before.macs:,} -> {now.macs:,} ({now.macs / dense.macs:.1%}); "
        f"{left(now, event.budget)}; certified to {event.max_error:.1e}"
    )


def withdraw(trainer: L.Trainer, number: int, now: Amounts, *, part: str) -> None:
    """Logs that cut `number` was taken back, and what the network costs since."""
    values = {"prune/step": number, f"{_place(part)}taken_back": 1.0, **costs(now, part=part)}
    tracking.log_event(trainer, values)
    show(trainer, values)


def show(trainer: L.Trainer, values: Mapping[str, float]) -> None:
    """Puts numbers where callbacks and users look for metrics, without sending them to loggers once more.

    They stay there for the whole run, so that monitors and names of files may be made of them.
    """
    numbers = {name: torch.tensor(float(value)) for name, value in values.items()}
    trainer.logged_metrics.update(numbers)
    trainer.callback_metrics.update(numbers)


def costs(now: Amounts, *, part: str) -> dict[str, float]:
    """What a network costs, by the names under which it is logged."""
    place = _place(part)
    return {f"{place}params": now.params, f"{place}macs": now.macs, f"{place}channels": now.channels}


def left(now: Amounts, budget: Amounts) -> str:
    """What is still to be removed.

    Example:
        >>> left(Amounts(params=90, macs=80, channels=10), Amounts(params=60, macs=100, channels=10))
        'left to remove: 30 params'
    """
    have = now.known
    over = [
        f"{have[name] - limit:,.{0 if isinstance(limit, int) else 2}f} {name}"
        for name, limit in budget.known.items()
        if have.get(name, 0) > limit
    ]
    return f"left to remove: {', '.join(over)}" if over else "the budget holds"


def _place(part: str) -> str:
    return f"prune/{part}/" if part else "prune/"
