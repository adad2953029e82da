"""The state in which a network is measured: eval mode, with everything put back afterwards."""

from __future__ import annotations

import gc
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from torch import nn

from seg_pruning.surgery.apply import Journal, commit_
from seg_pruning.surgery.cut import Cut
from seg_pruning.surgery.inputs import ExampleInputs, Inputs
from seg_pruning.surgery.untouched import untouched


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every module has its own mode again, also where some differed."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def as_written() -> Iterator[None]:
    """Compiled code runs as it was written inside: a look at it would be compiled with it, or break it."""
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def cut_for_now(model: nn.Module, cut: Cut) -> Iterator[None]:
    """Within, `model` is cut; afterwards it is as it was, parameters with the storage that they had.

    What running or recalibrating it within changes (buffers, modes, attributes) is undone too.
    """
    with untouched(model):
        journal = Journal()
        try:
            commit_(journal, model, cut, optimizers=(), max_error=None)
            yield
        finally:
            journal.roll_back()


@contextmanager
def keeping_rng(device: torch.device) -> Iterator[None]:
    """Random numbers drawn inside (by dropout that ignores eval mode) change none of those drawn later."""
    accelerators = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(accelerators, device_type="cuda" if device.type == "cpu" else device.type):
        yield


def call_once(
    model: nn.Module, example_inputs: ExampleInputs | Inputs, watch: AbstractContextManager[object]
) -> object:
    """What `model` answers to one call in eval mode without gradients, `watch` being entered around it.

    It runs where its parameters are. Its modes and the random state are as before afterwards.

    Raises:
        PruningError: `example_inputs` is none of a tensor, a tuple and a dict.
    """
    inputs = Inputs.of(example_inputs)
    device = device_of(model, inputs)
    with evaluating(model), as_written(), keeping_rng(device), torch.no_grad(), watch:
        return inputs.to(device=device).call(model)


def device_of(model: nn.Module, inputs: Inputs) -> torch.device:
    """Where `model` runs: the device of its first parameter or buffer, or else of the first input."""
    first = next(iter([*model.parameters(), *model.buffers()]), inputs.tensors[0])
    return first.device


def dtype_of(model: nn.Module, inputs: Inputs) -> torch.dtype:
    """What `model` computes in: the dtype of its first floating parameter, or else of such an input."""
    tensors = [*model.parameters(), *inputs.tensors]
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


@contextmanager
def set_threads(count: int) -> Iterator[None]:
    """`count` threads within one operation inside, as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def without_collection() -> Iterator[None]:
    """No garbage collection inside: it would fall into whichever pass is being timed."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def device_name(device: torch.device) -> str:
    """The hardware in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_name() if device.type == "cpu" else device.type


def _cpu_name() -> str:
    """The processor's model where the system tells it (Python knows only the architecture on Linux)."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
