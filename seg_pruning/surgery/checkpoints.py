"""The structure of a pruned network inside a checkpoint: plain types, loadable with `weights_only=True`."""

from collections.abc import Mapping, MutableMapping
from typing import Any

from torch import Tensor, nn

from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.intake import check_fits
from seg_pruning.surgery.note import structure_of
from seg_pruning.surgery.rebuilding import all_tensors, restructure_
from seg_pruning.surgery.structure import Structure
from seg_pruning.surgery.untouched import unless_it_fails

KEY = "seg_pruning"
"""The entry of a checkpoint that holds the structure."""


def write_structure(checkpoint: MutableMapping[str, Any], model: nn.Module) -> None:
    """Adds the structure of `model` to a checkpoint that holds its `state_dict`; nothing if it is dense.

    Tensors that are cut but do not stand in the state dict (a buffer with `persistent=False`, the weights of
    a part that is left out of files) are added with it.
    """
    structure = structure_of(model)
    if structure is None:
        return
    stored = checkpoint["state_dict"]
    hidden = {
        name: tensor.detach().clone()
        for name, tensor in all_tensors(model).items()
        if name in structure.dense and name not in stored
    }
    checkpoint[KEY] = {"structure": structure.to_dict(), "buffers": hidden}


def take_structure_(checkpoint: MutableMapping[str, Any], model: nn.Module) -> None:
    """Gives `model` the widths of the checkpoint, denser or sparser, so that its weights can be loaded next.

    Weights of modules that `model` has dropped because they never run are taken out of the checkpoint.

    Raises:
        PruningError: the checkpoint is of another network, or lacks a tensor whose width changes; `model` is
            then untouched.
    """
    structure, hidden = _read(checkpoint.get(KEY))
    present = structure_of(model)
    if structure is None and present is None:
        return
    state = checkpoint["state_dict"]
    gone = tuple(f"{path}." for path in (present or Structure()).dropped)
    for name in [name for name in state if name.startswith(gone)] if gone else ():
        del state[name]
    known = {**state, **hidden}
    shapes = {name: tuple(value.shape) for name, value in known.items() if isinstance(value, Tensor)}
    _check_complete(model, shapes, present or Structure(), structure or Structure())
    check_fits(model, shapes, structure or Structure())
    with unless_it_fails(model):
        restructure_(model, shapes, structure)
        for name, tensor in all_tensors(model).items():
            if name in hidden:
                tensor.data.copy_(hidden[name])


def _read(stored: object) -> tuple[Structure | None, Mapping[str, Tensor]]:
    """The structure and the buffers of the entry of a checkpoint."""
    if stored is None:
        return None, {}
    buffers = stored.get("buffers") if isinstance(stored, dict) else None
    if not isinstance(buffers, dict) or not all(isinstance(value, Tensor) for value in buffers.values()):
        raise PruningError(
            f"the checkpoint's {KEY!r} is damaged: it holds 'structure' and 'buffers' by name, "
            f"not {stored!r:.100}"
        )
    return Structure.from_dict(stored.get("structure")), buffers  # type: ignore[attr-defined]


def _check_complete(
    model: nn.Module, shapes: Mapping[str, tuple[int, ...]], present: Structure, target: Structure
) -> None:
    """Raises where a tensor that is cut here or there is not in the file: its values would be made up."""
    if present.plans == target.plans:
        return
    gone = tuple(f"{path}." for path in target.dropped)
    cut = [name for name in all_tensors(model) if name in present.dense or name in target.dense]
    missing = [name for name in cut if name not in shapes and not name.startswith(gone)]
    if missing:
        raise PruningError(
            f"the checkpoint lacks {len(missing)} tensors whose width differs from this network's: "
            f"{', '.join(missing[:10])}. Load it into a network of the same widths, or store them"
        )
