"""Several processes that train one network: what one of them decides all do, and they fail together.

Nothing here does anything where there is one process. Where one rank may fail alone, its work stands within
`together`: it tells the others, so that none waits for it forever.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import lightning as L
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from seg_pruning.surgery.errors import PruningError

T = TypeVar("T")


def decided(trainer: L.Trainer, decide: Callable[[], T]) -> T:
    """What `decide` gives on rank 0, the only one that calls it.

    Raises:
        PruningError: it failed there; rank 0 raises its own error.
    """
    if trainer.world_size == 1:
        return decide()
    value: T | None = None
    with together(trainer):
        value = decide() if trainer.is_global_zero else None
    return cast("T", trainer.strategy.broadcast(value))


def gathered(trainer: L.Trainer, mine: Iterable[T]) -> list[T]:
    """What each rank has, one from each in turn: in the order in which one rank would have seen it."""
    own = list(mine)
    if trainer.world_size == 1:
        return own
    found = _from_all(trainer, own)
    longest = max(map(len, found))
    return [entries[i] for i in range(longest) for entries in found if i < len(entries)]


@contextmanager
def together(trainer: L.Trainer) -> Iterator[None]:
    """Raises on every rank where the code inside raises on one; inside, no rank may wait for another.

    Raises:
        PruningError: it failed on another rank. The rank itself raises its own error.
    """
    try:
        yield
    except Exception as error:
        if trainer.world_size > 1:
            _from_all(trainer, f"{type(error).__name__}: {error}")
        raise
    if trainer.world_size == 1:
        return
    failures = [f"rank {rank}: {text}" for rank, text in enumerate(_from_all(trainer, "")) if text]
    if failures:
        raise PruningError("it failed on another process, and this one ends with it. " + "; ".join(failures))


def check_same(trainer: L.Trainer, value: str, *, what: str) -> None:
    """Raises on every rank where the ranks do not all have the same `value`.

    Raises:
        PruningError: they differ: `what` is then not one any more.
    """
    if trainer.world_size > 1 and len(set(_from_all(trainer, value))) > 1:
        raise PruningError(
            f"the processes of this training no longer have the same {what}, which would train networks that "
            "drift apart: please report it, with the versions of torch and lightning"
        )


def wrapped(trainer: L.Trainer, network: object) -> bool:
    """Whether Lightning calls `network` itself, through a wrapper, in order to call its `training_step`."""
    model = trainer.strategy.model
    return isinstance(model, DistributedDataParallel) and model.module is network


def wrap_again_(trainer: L.Trainer, module: L.LightningModule) -> None:
    """Lets the wrapper of a network whose widths have changed be made anew: its buckets are of the old ones.

    It also checks that all ranks have the same shapes, and gives them the weights of rank 0.
    """
    strategy = trainer.strategy
    if not isinstance(strategy.model, DistributedDataParallel):
        return
    strategy.model = module
    gc.collect()  # the old wrapper's hooks on the gradients go with it
    strategy.configure_ddp()  # type: ignore[attr-defined] # the strategies that wrap have it


def _from_all(trainer: L.Trainer, mine: T) -> list[T]:
    found: list[Any] = [None] * trainer.world_size
    dist.all_gather_object(found, mine)
    return found
