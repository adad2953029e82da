"""A whole network is timed, dense or cut, and is then as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import nn

from seg_pruning.profiling.clock import Call, Clock
from seg_pruning.profiling.inference import cut_for_now, device_of, evaluating, keeping_rng
from seg_pruning.profiling.target import Target
from seg_pruning.surgery.graph import ChannelGraph
from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.untouched import untouched

_TURNS = 3


@dataclass(frozen=True)
class NetworkTimer:
    """Times one network under one target; weights, modes and attributes are the same afterwards.

    Attributes:
        model: the network.
        graph: its graph.
        inputs: what it is called with, in the batch and dtype of `target`.
        target: threads, dtype, batch.
        clock: what measures.
    """

    model: nn.Module
    graph: ChannelGraph
    inputs: Inputs
    target: Target
    clock: Clock

    def present(self) -> float:
        """Milliseconds of the network as it is."""
        with self.running():
            return self.clock.milliseconds([self.call])[0]

    def pruned(self, plan: Plan) -> float:
        """Milliseconds of the network cut by `plan`."""
        with cut_for_now(self.model, self.graph.cut(plan)):
            return self.present()

    def beside(self, plan: Plan) -> tuple[float, float]:
        """Milliseconds of the network as it is and cut by `plan`, medians of sessions in turns."""
        sessions = [(self.present(), self.pruned(plan)) for _ in range(_TURNS)]
        return median(present for present, _ in sessions), median(pruned for _, pruned in sessions)

    @property
    def call(self) -> Call:
        """One pass."""
        return partial(self.inputs.call, self.model)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within, the network is as the target wants it."""
        device = device_of(self.model, self.inputs)
        with (
            untouched(self.model),
            _in_dtype(self.model, self.target.torch_dtype),
            evaluating(self.model),
            keeping_rng(device),
            torch.no_grad(),
            torch.autocast(device.type, enabled=False),
        ):
            yield


@contextmanager
def _in_dtype(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within, what computes in floats computes in `dtype`; afterwards the values are the ones they were."""
    tensors = [
        t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point() and t.dtype != dtype
    ]
    values = [(tensor, tensor.data, tensor.grad) for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.grad = None  # torch compares dtypes when either is set
            tensor.data = tensor.data.to(dtype)
        yield
    finally:
        for tensor, value, grad in values:
            tensor.data = value
            tensor.grad = grad
