"""A pruned network as one file: safetensors, with the structure as JSON in its metadata; never a pickle."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from seg_pruning.surgery.atomic import whole_file
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.intake import check_fits, parse
from seg_pruning.surgery.note import structure_of
from seg_pruning.surgery.rebuilding import all_tensors, hidden_buffers, restructure_
from seg_pruning.surgery.structure import Structure
from seg_pruning.surgery.untouched import unless_it_fails

VERSION = 2
"""Of the note beside the tensors. Version 1, still read, had a hash of the tensors alone."""

_KEY = "seg_pruning"


def save_pruned(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes the tensors and the structure of `model`, dense or pruned, to a safetensors file.

    The file appears under its name only when it is whole.

    Raises:
        PruningError: the state dict of `model` holds something that is no tensor; nothing is written then.
    """
    structure = structure_of(model)
    live = model.state_dict()
    if other := [name for name, value in live.items() if not isinstance(value, Tensor)]:
        raise PruningError(
            f"the state dict holds what is no tensor, for which there is no place in a safetensors file: "
            f"{', '.join(other[:10])}. Save a Lightning checkpoint, or a torch.save of state_dict(), instead"
        )
    live |= hidden_buffers(model, structure)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in live.items()}
    stored, aliases = _without_shared(live, state)
    note: dict[str, Any] = {
        "version": VERSION,
        "structure": None if structure is None else structure.to_dict(),
        "aliases": aliases,
    }
    note["hash"] = _hash(stored, note)
    with whole_file(Path(path)) as draft:
        save_file(stored, draft, metadata={_KEY: json.dumps(note, allow_nan=False)})


def _without_shared(
    live: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tied tensors are stored once: the tensors, and for each other name the one it stands for."""
    first: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    stored, aliases = {}, {}
    for name, tensor in state.items():
        original = live[name]
        key = (original.data_ptr(), tuple(original.shape), tuple(original.stride()))
        twin = first.setdefault(key, name) if original.numel() else name
        if twin == name:
            stored[name] = tensor.clone() if tensor.untyped_storage().nbytes() != tensor.nbytes else tensor
        else:
            aliases[name] = twin
    return stored, aliases


def _hash(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> str:
    """Of the tensors and of all that the note says beside its hash."""
    digest = hashlib.sha256()
    if note["version"] != 1:
        said = {key: value for key, value in note.items() if key != "hash"}
        digest.update(json.dumps(said, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def load_pruned_(model: nn.Module, path: str | os.PathLike[str]) -> Structure | None:
    """Makes a freshly built dense network the pruned one that `save_pruned` wrote; gives its structure.

    Raises:
        FileNotFoundError: there is no such file.
        PruningError: the file is truncated, altered, of a newer version or of another network; `model` is
            untouched then.
    """
    tensors, note = _read(Path(path))
    structure = _structure(note, path)
    state = {**tensors, **{name: tensors[twin] for name, twin in note["aliases"].items()}}
    _check_names(model, state, structure, path)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    try:
        check_fits(model, shapes, structure or Structure())
        with unless_it_fails(model):
            restructure_(model, shapes, structure)
            for name, buffer in hidden_buffers(model, structure).items():
                buffer.copy_(state.pop(name))
            model.load_state_dict(state)
    except (PruningError, RuntimeError) as error:  # a network's own way of loading may refuse, too
        raise PruningError(f"{path}: {error}") from error
    return structure


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise PruningError(f"{path} is truncated or no safetensors file: {error}") from error
    if _KEY not in metadata:
        raise PruningError(f"{path} was not written by save_pruned: its metadata has no {_KEY!r}")
    note = _note(metadata[_KEY], path)
    if note["hash"] != _hash(tensors, note):
        raise PruningError(f"{path} is damaged: its contents do not have the hash that was written with them")
    astray = [n for n, twin in note["aliases"].items() if not isinstance(twin, str) or twin not in tensors]
    if astray:
        raise PruningError(f"{path} is damaged: {', '.join(astray[:10])} stand for tensors that it lacks")
    return tensors, note


def _note(text: str, path: Path) -> dict[str, Any]:
    try:
        note = parse(text)
    except ValueError as error:
        raise PruningError(f"{path} has metadata that is not JSON: {error}") from error
    if not isinstance(note, dict):
        raise PruningError(f"{path} has metadata that is a {type(note).__name__}, not a JSON object")
    version = note.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise PruningError(
            f"{path} has version {version!r:.100}; this release reads versions 1 to {VERSION}: "
            "update seg_pruning"
        )
    if not isinstance(note.get("aliases"), dict) or not isinstance(note.get("hash"), str):
        raise PruningError(f"{path} has metadata without 'aliases' and 'hash'")
    return note


def _structure(note: Mapping[str, Any], path: str | os.PathLike[str]) -> Structure | None:
    try:
        return None if note.get("structure") is None else Structure.from_dict(note["structure"])
    except PruningError as error:
        raise PruningError(f"{path}: {error}") from error


def _check_names(
    model: nn.Module, state: Mapping[str, Tensor], structure: Structure | None, path: object
) -> None:
    dropped = () if structure is None else structure.dropped
    hidden = {*hidden_buffers(model, structure), *hidden_buffers(model, structure_of(model))}
    names = {*model.state_dict(), *hidden}
    wanted = {name for name in names if not any(name.startswith(f"{p}.") for p in dropped)}
    missing, unknown = sorted(wanted - set(state)), sorted(set(state) - wanted)
    if missing or unknown:
        raise PruningError(
            f"{path} is of another network: "
            f"{len(missing)} tensors of this one are not in it ({', '.join(missing[:5])}), "
            f"{len(unknown)} in it are not in this one ({', '.join(unknown[:5])}). "
            "Build the network with the arguments it was pruned with"
        )
    present = all_tensors(model)
    other = [n for n, t in state.items() if n in present and present[n].dtype != t.dtype]
    if other:
        raise PruningError(
            f"{path} holds other dtypes than the network for {', '.join(other[:10])}; "
            "convert the network first"
        )
