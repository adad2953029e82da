"""Layers that fine-tuning will thaw: until they are trained they keep their width."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch.callbacks import BaseFinetuning
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from seg_pruning.callbacks.scoring import untrained
from seg_pruning.packages import of_kind
from seg_pruning.pruning.amounts import LatencyOf
from seg_pruning.pruning.budgets import Amounts, amounts
from seg_pruning.pruning.selection import Selection, smallest_amounts

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGraph


def thaws(trainer: L.Trainer) -> bool:
    """Whether layers that are frozen now are to be trained later, as far as can be known."""
    return bool(of_kind(trainer.callbacks, BaseFinetuning))  # type: ignore[attr-defined]


def warn_frozen(graph: ChannelGraph, network: nn.Module, whole: Collection[str]) -> None:
    """Warns of groups that nothing trains, before a training whose cuts need gradients of them.

    Somebody may thaw them in time, so that this is no error yet.

    Args:
        graph: the graph of `network`.
        network: what is pruned.
        whole: names of groups that keep their width.
    """
    frozen = untrained(graph, network, unread=whole)
    if frozen:
        rank_zero_warn(
            f"nothing trains {len(frozen)} groups ({', '.join(frozen[:5])}): without "
            "gradients they cannot be scored, and the first cut will fail. Unfreeze them before it, protect "
            "them, or choose a criterion of weights such as 'l2'"
        )


def spare(
    graph: ChannelGraph,
    selection: Selection,
    limit: Amounts,
    waiting: Collection[str],
    *,
    dense: Mapping[str, int],
    latency: LatencyOf | None,
) -> tuple[Amounts, Selection]:
    """The limit and the selection for a cut in which the groups of `waiting` keep their width.

    Their share is not taken from the others: it is left to the cuts that come once they are trained.
    """
    if not waiting:
        return limit, selection
    _say(waiting)
    held = replace(selection, protect=(*selection.protect, *sorted(waiting)))
    smallest, without = (
        smallest_amounts(graph, each, dense=dense, latency=latency) for each in (selection, held)
    )
    return spared(limit, amounts(graph, dense=dense, latency=latency), smallest, without), held


def spared(limit: Amounts, present: Amounts, smallest: Amounts, without: Amounts) -> Amounts:
    """A limit by which the others lose the same fraction of what they can lose as all would have lost.

    Args:
        limit: the limit for all.
        present: the amounts now, which are not below `smallest`.
        smallest: those with all as narrow as they can be.
        without: those with the others as narrow as they can be.

    Example:
        >>> spared(Amounts(60, 90, 7), Amounts(100, 80, 10), Amounts(20, 30, 4), Amounts(60, 40, 6))
        Amounts(params=80, macs=90, channels=8)
    """
    now, all_, some = asdict(present), asdict(smallest), asdict(without)
    found = {name: _spared(most, now[name], all_[name], some[name]) for name, most in asdict(limit).items()}
    return Amounts(**found)


def _spared(limit: Any, now: Any, smallest: Any, without: Any) -> Any:
    if limit is None or limit >= now:
        return limit
    wanted = now - (now - limit) / (now - smallest) * (now - without)
    return math.ceil(round(wanted, 6)) if isinstance(limit, int) else wanted


def _say(waiting: Collection[str]) -> None:
    names = sorted(waiting)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    rank_zero_info(
        f"{len(names)} groups wait until fine-tuning thaws them, and keep their width now: "
        f"{', '.join(names[:5])}{more}"
    )
