"""Makes a dense network, or one pruned otherwise, have the widths of a stored one."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from seg_pruning.surgery.cut import memory_format_of
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.note import remember_, structure_of
from seg_pruning.surgery.passes import tensors_of
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.sizes import declared, read, write_
from seg_pruning.surgery.structure import Structure


def restructure_(
    model: nn.Module, shapes: Mapping[str, tuple[int, ...]], structure: Structure | None
) -> None:
    """Gives `model` the widths of a state dict, denser or sparser.

    Call it just before `load_state_dict`: the values of resized tensors are undefined. Parameters stay the
    objects that they are.

    Args:
        model: a network of the same kind, dense or pruned in any way.
        shapes: shape of each entry of the state dict that will be loaded.
        structure: the structure that was stored with it; None for a dense one.

    Raises:
        PruningError: the state dict is of another network; `model` is then untouched.
    """
    target = structure or Structure()
    present = structure_of(model) or Structure()
    check_same_network(model, shapes, target)
    for attribute in present.sizes:
        write_(model, attribute, present.sizes[attribute][0])
    for attribute, (_, now) in target.sizes.items():
        write_(model, attribute, now)
    for path in target.dropped:
        parent, _, name = path.rpartition(".")
        model.get_submodule(parent)._modules[name] = nn.Identity()
    for name, tensor in all_tensors(model).items():
        if name in shapes and tuple(tensor.shape) != tuple(shapes[name]):
            tensor.grad = None
            tensor.data = torch.empty(
                shapes[name],
                dtype=tensor.dtype,
                device=tensor.device,
                memory_format=memory_format_of(tensor),
            )
    _state_sizes_(model)
    remember_(model, _still_without(structure, present.dropped))


def _still_without(structure: Structure | None, dropped: tuple[str, ...]) -> Structure | None:
    """`structure` for a network that lacks `dropped` already: weights can come back, modules cannot."""
    missing = tuple(path for path in dropped if path not in (structure or Structure()).dropped)
    if not missing:
        return structure
    found = structure or Structure()
    return replace(found, plans=(*found.plans, Plan({}, {}, missing)))


def _state_sizes_(model: nn.Module) -> None:
    for module in model.modules():
        shapes = {
            name: tuple(t.shape)
            for name, t in (*module._parameters.items(), *module._buffers.items())
            if t is not None
        }
        for name, value in declared(module, shapes, None).items():
            if getattr(module, name) != value:
                setattr(module, name, value)


def all_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by every name under which they stand."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def hidden_buffers(model: nn.Module, structure: Structure | None) -> dict[str, Tensor]:
    """Buffers that were cut but stand in no state dict (`persistent=False`): a file has to hold them too."""
    stored, cut = model.state_dict(), () if structure is None else structure.dense
    buffers = model.named_buffers(remove_duplicate=False)
    return {name: buffer.detach() for name, buffer in buffers if name in cut and name not in stored}


def check_same_network(model: nn.Module, shapes: Mapping[str, tuple[int, ...]], structure: Structure) -> None:
    """Raises where a state dict of these shapes is of no network like `model`: their dense shapes differ."""
    present = structure_of(model) or Structure()
    gone = [name for name in structure.dense if name not in all_tensors(model)]
    dropped = tuple(f"{path}." for path in present.dropped)
    problems = [f"{name}: no such tensor" for name in gone if not name.startswith(dropped)]
    first = {id(tensor): name for name, tensor in tensors_of(model).items()}  # a tied tensor is noted once
    for name, tensor in all_tensors(model).items():
        noted = first[id(tensor)]
        mine = present.dense.get(noted, tuple(tensor.shape))
        theirs = structure.dense.get(noted, tuple(shapes.get(name, mine)))
        if mine != theirs:
            problems.append(f"{name}: dense shape {theirs}, not {mine}")
    modules = dict(model.named_modules())
    problems += [f"{path}: no such module to drop" for path in structure.dropped if path not in modules]
    for attribute in structure.sizes:
        try:
            read(model, attribute)
        except (AttributeError, IndexError, TypeError, ValueError):
            problems.append(f"{attribute}: no such size")
    if problems:
        raise PruningError(
            f"this is the state of another network; {len(problems)} places differ: "
            f"{'; '.join(problems[:10])}. Build the network with the arguments it was pruned with"
        )
