"""Modules that never run: a decoder of depth 3 leaves the deeper stages of its encoder idle."""

from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from seg_pruning.surgery.graph import ChannelGraph
from seg_pruning.surgery.inputs import Inputs, flatten_tensors
from seg_pruning.surgery.trace import repeatable, tensors_of, train_mode


def dead_modules(model: nn.Module, graph: ChannelGraph, inputs: Inputs) -> tuple[str, ...]:
    """The outermost modules whose every parameter is idle in eval mode and in train mode.

    Gives none where the network does not run in train mode on `inputs` (a forward that wants targets, say):
    what training needs is then not known.
    """
    if not graph.idle:
        return ()
    used = _read_in_training(model, inputs)
    return () if used is None else _outermost(model, set(graph.idle) - used)


def _read_in_training(model: nn.Module, inputs: Inputs) -> set[str] | None:
    """Names of the parameters that a pass in train mode reads; the network and its buffers are untouched."""
    copies = {name: tensor.detach().clone() for name, tensor in tensors_of(model).items()}
    reads = _Reads()
    try:
        with train_mode(model), repeatable(), reads:
            functional_call(model, copies, inputs.args, dict(inputs.kwargs))
    except Exception:
        return None
    return {name for name, tensor in copies.items() if id(tensor) in reads.seen}


class _Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which tensors ops read."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[int] = set()

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.seen.update(id(tensor) for tensor in flatten_tensors((args, kwargs or {})))
        return func(*args, **(kwargs or {}))


def _outermost(model: nn.Module, idle: set[str]) -> tuple[str, ...]:
    found: list[str] = []
    for path, module in model.named_modules():
        names = [f"{path}.{name}" for name, _ in module.named_parameters()]
        inside = any(path.startswith(f"{above}.") for above in found)
        if path and names and not inside and idle.issuperset(names):
            found.append(path)
    return tuple(found)
