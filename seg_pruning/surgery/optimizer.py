"""The masks of a cut on the state of optimizers."""

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from seg_pruning.surgery.cut import take
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import flatten_tensors

Write = Callable[[Callable[[], object], Callable[[], object]], None]


def cut_states(
    optimizer: Optimizer, masks: Mapping[Tensor, Tensor]
) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Each entry of the optimizer's state that changes: the dict that holds it, its key, its new value.

    State of a parameter's shape (momentum, moments) is cut by the parameter's mask. A scalar (a step count)
    stays.

    Raises:
        PruningError: state of another shape (factored moments), or that is no tensor but holds tensors.
    """
    for parameter, state in list(optimizer.state.items()):
        mask = masks.get(parameter)
        if mask is None:
            _check_own(optimizer, parameter, state)
            continue
        for key, value in state.items():
            if _carried(optimizer, key, value, mask):
                yield state, key, take(value, mask)


def _check_own(optimizer: Optimizer, parameter: Tensor, state: Mapping[str, Any]) -> None:
    """Raises where the state of a parameter that is not cut covers others that may be (L-BFGS)."""
    for key, value in state.items():
        if any(tensor.numel() > parameter.numel() for tensor in flatten_tensors(value)):
            raise PruningError(
                f"{type(optimizer).__name__} keeps state {key!r} of all parameters together, which cannot be "
                "carried through a cut; clear optimizer.state before pruning"
            )


def _carried(optimizer: Optimizer, key: str, value: object, mask: Tensor) -> bool:
    """Whether `value` is to be cut; False where it stays as it is."""
    if isinstance(value, Tensor) and value.shape == mask.shape:
        return True
    if (isinstance(value, Tensor) and value.numel() == 1) or not isinstance(
        value, Tensor | list | tuple | dict
    ):
        return False
    kind = (
        f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"that is a {type(value).__name__}"
    )
    raise PruningError(
        f"{type(optimizer).__name__} keeps state {key!r} {kind} for a parameter of shape "
        f"{tuple(mask.shape)}, which cannot be carried through a cut; use an optimizer whose state has the "
        "parameter's shape (SGD, Adam, AdamW, RMSprop, ...), or clear optimizer.state before pruning"
    )


def without_parameters(optimizer: Optimizer, gone: AbstractSet[Tensor], write: Write) -> None:
    """Takes parameters out of the optimizer's groups and state."""
    for group in optimizer.param_groups:
        old = group["params"]
        new = [p for p in old if p not in gone]
        if len(new) != len(old):
            write(partial(group.__setitem__, "params", new), partial(group.__setitem__, "params", old))
    for parameter in [p for p in optimizer.state if p in gone]:
        state = optimizer.state[parameter]
        write(partial(optimizer.state.pop, parameter), partial(optimizer.state.__setitem__, parameter, state))
