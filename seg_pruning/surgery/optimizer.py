"""The masks of a cut on the state of optimizers."""

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from seg_pruning.surgery.cut import kept_shape, take
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import flatten_tensors

Write = Callable[[Callable[[], object], Callable[[], object]], None]

_REMEDY = (
    "use an optimizer whose state has the parameter's shape (SGD, Adam, AdamW, RMSprop, ...), or clear "
    "optimizer.state before pruning"
)


def cut_states(
    optimizer: Optimizer, masks: Mapping[Tensor, Tensor]
) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Each entry of the optimizer's state that changes: the dict that holds it, its key, its new value.

    State of a parameter's shape (momentum, moments) is cut by the parameter's mask. Factored state, which has
    the parameter's dims with some reduced to size 1 (`torch.optim.Adafactor`), is cut along the dims that it
    still has. A scalar (a step count) stays.

    Raises:
        PruningError: state of another shape, state of all parameters together, or state that is no tensor but
            holds tensors.
    """
    if masks:
        _check_groups(optimizer)
    for parameter, state in list(optimizer.state.items()):
        mask = masks.get(parameter)
        if mask is None:
            _check_own(optimizer, parameter, state)
            continue
        for key, value in state.items():
            part = _mask_of(optimizer, key, value, mask)
            if part is not None and not bool(part.all()):
                yield state, key, take(value, part)


def _check_groups(optimizer: Optimizer) -> None:
    """Raises where a group has tensors of its own: which parameters' channels they follow is not known."""
    for group in optimizer.param_groups:
        for key, value in group.items():
            if key != "params" and any(tensor.numel() > 1 for tensor in flatten_tensors(value)):
                raise PruningError(
                    f"{type(optimizer).__name__} keeps the tensor {key!r} with a group of parameters, which "
                    f"cannot be carried through a cut; {_REMEDY}"
                )


def _check_own(optimizer: Optimizer, parameter: object, state: object) -> None:
    """Raises where state outside of the cut parameters covers them nevertheless (L-BFGS)."""
    own = parameter.numel() if isinstance(parameter, Tensor) else 1
    entries = state.items() if isinstance(state, Mapping) else [(parameter, state)]
    for key, value in entries:
        if any(tensor.numel() > own for tensor in flatten_tensors(value)):
            raise PruningError(
                f"{type(optimizer).__name__} keeps state {key!r} of all parameters together, which cannot be "
                f"carried through a cut; {_REMEDY}"
            )


def _mask_of(optimizer: Optimizer, key: str, value: object, mask: Tensor) -> Tensor | None:
    """The mask of one entry of the state of a parameter with `mask`; None where the entry stays as it is."""
    if isinstance(value, Tensor) and value.layout == torch.strided:
        if value.shape == mask.shape:
            return mask
        if value.numel() == 1:
            return None
        if (factored := _reduced(mask, tuple(value.shape))) is not None:
            return factored
    elif not flatten_tensors(value) and not isinstance(value, tuple | list | dict):
        return None
    kind = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"in a {type(value).__name__}"
    raise PruningError(
        f"{type(optimizer).__name__} keeps state {key!r} {kind} for a parameter of shape "
        f"{tuple(mask.shape)}, which cannot be carried through a cut; {_REMEDY}"
    )


def _reduced(mask: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """`mask` for a tensor whose dims are those of the parameter or 1; None where that says no rectangle.

    A mask whose blocks keep different channels has none for the columns of all blocks together.
    """
    if len(shape) != mask.ndim or any(
        own not in (1, size) for own, size in zip(shape, mask.shape, strict=True)
    ):
        return None
    gone = tuple(dim for dim, size in enumerate(shape) if size != mask.shape[dim])
    part = mask.any(gone, keepdim=True) if gone else mask
    try:
        wanted = tuple(1 if dim in gone else size for dim, size in enumerate(kept_shape(mask)))
        return part if kept_shape(part) == wanted else None
    except PruningError:
        return None


def without_parameters(optimizer: Optimizer, gone: AbstractSet[Tensor], write: Write) -> None:
    """Takes parameters out of the optimizer's groups and state."""
    for group in optimizer.param_groups:
        held = group["params"]
        new = [p for p in held if p not in gone]
        if len(new) != len(held):
            # In place: some optimizers (L-BFGS) hold the same list elsewhere too.
            write(
                partial(held.__setitem__, slice(None), new), partial(held.__setitem__, slice(None), held[:])
            )
    state = optimizer.state
    rest = {parameter: entries for parameter, entries in state.items() if parameter not in gone}
    if len(rest) != len(state):
        write(partial(_refill, state, rest), partial(_refill, state, dict(state)))


def _refill(state: dict[Any, Any], entries: Mapping[Any, Any]) -> None:
    state.clear()
    state.update(entries)


def forget_sizes(optimizer: Optimizer, write: Write) -> None:
    """Makes an optimizer that counted the elements of its parameters once count them anew."""
    if isinstance(optimizer, LBFGS):
        known = vars(optimizer).get("_numel_cache")
        write(
            partial(setattr, optimizer, "_numel_cache", None),
            partial(setattr, optimizer, "_numel_cache", known),
        )
