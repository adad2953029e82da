"""The learning rate climbs anew after each cut, whatever its scheduler does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle


def ramp(step: int, since: int, steps: int) -> float:
    """Factor of the learning rate at optimizer step `step`, where a cut was made before step `since`.

    In (0, 1]: the first step after the cut has 1 / `steps`, and from the `steps`-th on it is 1.

    Example:
        >>> [ramp(step, since=10, steps=4) for step in (10, 11, 12, 13, 14)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return 1.0 if steps < 1 else min(1.0, (step - since + 1) / steps)


def scale_rates_(optimizers: Iterable[Optimizer], factor: Callable[[], float]) -> tuple[RemovableHandle, ...]:
    """Multiplies the learning rates during each step of the optimizers, and only during it.

    Schedulers compute the next rate from the present one: between steps they find the rate that they set, and
    so do checkpoints and monitors of the rate.

    Args:
        optimizers: whose steps are scaled.
        factor: gives the factor of the step that begins.

    Returns:
        Handles that end it.
    """
    return tuple(handle for optimizer in optimizers for handle in _scaled(optimizer, factor))


def _scaled(optimizer: Optimizer, factor: Callable[[], float]) -> tuple[RemovableHandle, RemovableHandle]:
    rates: list[Any] = []

    def before(optimizer: Optimizer, *_: object) -> None:
        """Notes the rates that the scheduler set, and scales them for the step that begins."""
        if (now := factor()) != 1.0:
            rates[:] = [group["lr"] for group in optimizer.param_groups]
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * now

    def after(optimizer: Optimizer, *_: object) -> None:
        """Sets the noted rates again; nothing where the step was made with them."""
        for group, rate in zip(optimizer.param_groups, rates, strict=False):
            group["lr"] = rate
        rates.clear()

    return optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)
