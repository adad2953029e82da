"""A second pass of a traced network, op by op: it has to run what the first one ran."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from seg_pruning.surgery.calls import FunctionCalls
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import Inputs, flatten_tensors
from seg_pruning.surgery.passes import eval_mode, repeatable, tensors_of


class DivergedError(PruningError):
    """The network did not run the ops of its trace."""


class Replay(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the ops of a pass and refuses one that differs from the trace.

    Args:
        ops: names of the ops of the trace, in order.
    """

    def __init__(self, ops: Sequence[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ops = ops
        self._next = 0

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        at, self._next = self._next, self._next + 1
        expected = self.ops[at] if at < len(self.ops) else "missing"
        if expected != str(func):
            raise DivergedError(
                f"the network does not run the same ops each time: op {at} was {expected} and is now {func}; "
                "a network whose ops depend on chance or on a counter cannot be traced; "
                "one that fills a cache has to be run once before"
            )
        return self.run(at, func, args, kwargs or {})

    def run(self, at: int, func: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Gives what op number `at` answers; the op itself, unless a subclass does otherwise."""
        return func(*args, **kwargs)


def replay(model: nn.Module, inputs: Inputs, values: Mapping[str, Tensor], mode: Replay) -> list[Tensor]:
    """What `model` answers under `mode` with other `values` for its parameters and buffers."""
    # Which kernels torch chooses depends on the flag even where no gradient is recorded.
    flags = {name: tensor.requires_grad for name, tensor in tensors_of(model).items()}
    flagged = {name: value.detach().requires_grad_(flags[name]) for name, value in values.items()}
    # Under a function mode, as in the trace: without one some torch.nn layers choose a fused path.
    with eval_mode(model), repeatable(), FunctionCalls(), mode:
        return flatten_tensors(functional_call(model, flagged, inputs.args, dict(inputs.kwargs)))
