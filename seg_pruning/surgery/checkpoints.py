"""The structure of a pruned network inside a checkpoint: plain types, loadable with `weights_only=True`."""

from collections.abc import MutableMapping
from typing import Any

from torch import Tensor, nn

from seg_pruning.surgery.structure import Structure, restructure_, structure_of

KEY = "seg_pruning"
"""The entry of a checkpoint that holds the structure."""


def write_structure(checkpoint: MutableMapping[str, Any], model: nn.Module) -> None:
    """Adds the structure of `model` to a checkpoint that holds its `state_dict`; a dense network adds nothing."""
    structure = structure_of(model)
    if structure is not None:
        checkpoint[KEY] = {"structure": structure.to_dict()}


def take_structure_(checkpoint: MutableMapping[str, Any], model: nn.Module) -> None:
    """Gives `model` the widths of the checkpoint, denser or sparser, so that its weights can be loaded next.

    Weights of modules that `model` has dropped because they never run are taken out of the checkpoint.

    Raises:
        PruningError: the checkpoint is of another network; `model` is then untouched.
    """
    stored = checkpoint.get(KEY)
    structure = None if stored is None else Structure.from_dict(stored["structure"])
    present = structure_of(model)
    if structure is None and present is None:
        return
    state = checkpoint["state_dict"]
    gone = tuple(f"{path}." for path in (present or Structure()).dropped)
    for name in [name for name in state if name.startswith(gone)] if gone else ():
        del state[name]
    shapes = {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}
    restructure_(model, shapes, structure)
