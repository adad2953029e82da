"""What was removed from a network, noted on its modules.

A network and its parts share one note. So it does not matter which of them was pruned and which is then
saved, loaded or pruned again: the network of a LightningModule, or the LightningModule around it.
"""

from dataclasses import dataclass
from typing import cast

from torch import nn

from seg_pruning.surgery.structure import Structure

_NOTE = "_pruning_structure"


@dataclass
class _Note:
    structure: Structure


@dataclass(frozen=True)
class _Place:
    """A module's share of a note: its name in the network that the note is about, "" for that network."""

    note: _Note
    path: str


def structure_of(model: nn.Module) -> Structure | None:
    """What has been removed from `model` and its parts; None for a dense network."""
    found, outer = Structure(), list[tuple[str, _Note]]()
    for path, module in model.named_modules():
        place = _place(module)
        around = next((note for prefix, note in reversed(outer) if f"{path}.".startswith(prefix)), None)
        if place is not None and place.note is not around:  # pruned by itself, after what is around it
            outer.append((f"{path}." if path else "", place.note))
            found = found.with_part(path, place.note.structure.below(place.path))
    return found if found.tells else None


def remember_(model: nn.Module, structure: Structure | None) -> None:
    """Notes on `model` and its parts what has been removed from it."""
    place = _place(model) or _Place(_Note(Structure()), "")
    place.note.structure = place.note.structure.with_part(place.path, structure or Structure())
    for path, module in model.named_modules():
        if place.note.structure.tells:
            # It travels with the network: deep copies (averaged weights, a teacher) are pruned networks too.
            vars(module)[_NOTE] = _Place(place.note, ".".join(filter(None, (place.path, path))))
        else:
            vars(module).pop(_NOTE, None)


def _place(module: nn.Module) -> _Place | None:
    return cast(_Place | None, vars(module).get(_NOTE))
