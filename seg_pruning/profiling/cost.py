"""Size and work of a network: parameters and multiply-accumulates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from seg_pruning.profiling.inference import call_once
from seg_pruning.profiling.latency import Latency
from seg_pruning.surgery.inputs import ExampleInputs, Inputs


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        params: Elements of all distinct parameters, trained or frozen; buffers are not counted.
        macs: Multiply-accumulates of one forward pass over the whole batch of the example inputs.
        latency: Measured time, where it was asked for.
    """

    params: int
    macs: int
    latency: Latency | None = None

    @property
    def flops(self) -> int:
        """Floating-point operations: two for each multiply-accumulate."""
        return 2 * self.macs


def cost(model: nn.Module, example_inputs: ExampleInputs | Inputs) -> Cost:
    """Counts parameters and multiply-accumulates of `model` by one forward pass in eval mode.

    Convolutions (grouped and transposed ones too), matrix products and attention are counted, as torch's own
    `FlopCounterMode` counts them; element-wise operations, norms, pooling, interpolation and the fused
    kernels of recurrent layers count as nothing. The model, its modes and the random state are as before.

    Args:
        model: Any module; it is run where its parameters are.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments; on any device.

    Raises:
        PruningError: `example_inputs` has none of these forms.

    Example:
        >>> cost(nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.zeros(1, 3, 4, 4))
        Cost(params=216, macs=3456, latency=None)
    """
    counter = FlopCounterMode(display=False)
    with _countable():
        call_once(model, example_inputs, counter)
    params = sum(parameter.numel() for parameter in model.parameters())
    return Cost(params, counter.get_total_flops() // 2)


@contextmanager
def _countable() -> Iterator[None]:
    """Without the fused kernel of torch's transformer layers, which the counter would take for free."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
