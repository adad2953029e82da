"""What a file says about a pruned network, checked before anything is written into a network."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.expressions import Attribute
from seg_pruning.surgery.note import structure_of
from seg_pruning.surgery.rebuilding import check_same_network
from seg_pruning.surgery.structure import Structure


def parse(text: str) -> object:
    """The value of a JSON text, read strictly.

    >>> parse('{"kept": [0, 2]}')
    {'kept': [0, 2]}

    Raises:
        ValueError: it is no JSON, nests too deeply, names a key twice, or holds a number that JSON does not
            know (NaN, Infinity) or that Python refuses to read.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"it names {', '.join(map(repr, twice[:10]))} more than once")
    return found


def _constant(name: str) -> object:
    raise ValueError(f"{name} is no number")


def check_fits(model: nn.Module, shapes: Mapping[str, tuple[int, ...]], structure: Structure) -> None:
    """Raises where `model` cannot become what a file describes.

    Args:
        model: a network of the same kind, dense or pruned in any way.
        shapes: shape of each tensor of the file.
        structure: the structure that was stored with them.

    Raises:
        PruningError: the file is of another network, or says what no cut can have done.
    """
    check_same_network(model, shapes, structure)
    problems = [
        f"{name}: shape {shapes[name]} of a dense {dense}"
        for name, dense in structure.dense.items()
        if name in shapes and not _is_part(shapes[name], dense)
    ]
    present = structure_of(model) or Structure()
    for attribute, (dense, _) in structure.sizes.items():
        mine = _held(model, attribute)
        if mine is None:
            problems.append(f"{attribute}: not a whole number that a module holds")
        elif (have := present.sizes.get(attribute, (mine, mine))[0]) != dense:
            problems.append(f"{attribute}: {dense} in the dense network, not {have}")
    if structure.max_error is not None and not math.isfinite(structure.max_error):
        problems.append(f"largest error of the certificates: {structure.max_error}")
    if meta := [name for name, tensor in model.named_parameters() if tensor.is_meta]:
        problems.append(f"{meta[0]}: the network is on the meta device, which holds no values")
    if problems:
        raise PruningError(
            f"the file does not fit the network; {len(problems)} places are impossible: "
            f"{'; '.join(problems[:10])}. Build the network with the arguments it was pruned with, and "
            "on a device that holds values"
        )


def _is_part(shape: Sequence[int], dense: Sequence[int]) -> bool:
    return len(shape) == len(dense) and all(0 < now <= was for now, was in zip(shape, dense, strict=True))


def _held(model: nn.Module, attribute: Attribute) -> int | None:
    """The int that a module holds as `attribute`; None for methods, properties and flags."""
    value = vars(model.get_submodule(attribute.module)).get(attribute.name)
    if attribute.index is not None:
        inside = isinstance(value, tuple | list) and 0 <= attribute.index < len(value)
        value = value[attribute.index] if inside else None  # type: ignore[index]
    return value if isinstance(value, int) and not isinstance(value, bool) else None
