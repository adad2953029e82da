"""One cut, told to loggers and to whoever watches."""

from collections.abc import Mapping
from dataclasses import dataclass

import lightning as L
from lightning.pytorch.utilities import rank_zero_info

from seg_pruning import tracking
from seg_pruning.pruning.budgets import Amounts


@dataclass(frozen=True)
class Event:
    """What a cut did.

    Attributes:
        number: counted from 1.
        planned: how many cuts are planned; a floor on a metric may make it more or fewer.
        dense: amounts before the first cut.
        before: amounts before this one.
        after: amounts after it.
        widths: of the groups that can still lose channels.
        max_error: the certificate; 0 where nothing had to leave.
    """

    number: int
    planned: int
    dense: Amounts
    before: Amounts
    after: Amounts
    widths: Mapping[str, int]
    max_error: float


def announce(trainer: L.Trainer, event: Event, *, part: str = "") -> None:
    """Logs a cut as `prune/...`, the width of each group included, and says it in one line.

    Args:
        trainer: the training.
        event: the cut.
        part: what was cut, where several parts are: the numbers are then `prune/<part>/...`.
    """
    dense, before, now = event.dense, event.before, event.after
    place = f"prune/{part}/" if part else "prune/"
    values = {
        "prune/step": event.number,
        f"{place}epoch": trainer.current_epoch,
        f"{place}params": now.params,
        f"{place}macs": now.macs,
        f"{place}channels": now.channels,
        f"{place}max_error": event.max_error,
        **{f"{place}channels/{name}": width for name, width in event.widths.items()},
    }
    tracking.log_event(trainer, values)
    rank_zero_info(
        f"pruned {f'{part} ' if part else ''}at epoch {trainer.current_epoch} "
        f"({event.number} of {event.planned}): "
        f"{before.channels - now.channels} channels removed; "
        f"params {before.params:,} -> {now.params:,} ({now.params / dense.params:.1%} of dense), "
        f"MACs {before.macs:,} -> {now.macs:,} ({now.macs / dense.macs:.1%}); "
        f"certified to {event.max_error:.1e}"
    )
