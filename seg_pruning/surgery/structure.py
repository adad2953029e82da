"""What makes a pruned network different from its dense one, as plain data, and rebuilding it from that.

Shapes are in the tensors themselves. The rest is small: attributes that were rewritten, modules that were
dropped, the kept channels with respect to the dense network, and the largest error that the certificates
measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from seg_pruning.surgery.cut import Cut
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.expressions import Attribute
from seg_pruning.surgery.passes import tensors_of
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.sizes import declared, read, write_

VERSION = 1
_NOTE = "_pruning_structure"


@dataclass(frozen=True)
class Structure:
    """How a network differs from the dense one.

    Attributes:
        plans: the cuts so far. One plan that names channels of the dense network; a later one is listed by
            itself where its groups do not continue the earlier ones.
        sizes: dense and present value of each attribute that was rewritten.
        dense: dense shape of each tensor that was cut, by which a file of another network is told.
        max_error: largest relative error of all certificates; None where a cut was applied by hand without
            one.
    """

    plans: tuple[Plan, ...] = ()
    sizes: Mapping[Attribute, tuple[int, int]] = field(default_factory=dict)
    dense: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    max_error: float | None = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", dict(self.sizes))
        object.__setattr__(self, "dense", {name: tuple(shape) for name, shape in self.dense.items()})

    @property
    def dropped(self) -> tuple[str, ...]:
        """Modules that are no longer there."""
        return tuple(dict.fromkeys(path for plan in self.plans for path in plan.dropped))

    def below(self, path: str) -> "Structure":
        """The structure of the submodule at `path`, for use without its parents."""
        prefix = f"{path}."
        sizes = {
            Attribute(a.module.removeprefix(prefix), a.name, a.index): values
            for a, values in self.sizes.items()
            if a.module.startswith(prefix)
        }
        dense = {n.removeprefix(prefix): shape for n, shape in self.dense.items() if n.startswith(prefix)}
        return Structure(tuple(plan.below(path) for plan in self.plans), sizes, dense, self.max_error)

    def followed_by(self, cut: Cut, before: Mapping[Attribute, int], max_error: float | None) -> "Structure":
        """The structure after one more cut of a network whose attributes were `before`."""
        sizes = dict(self.sizes)
        for attribute, value in cut.sizes.items():
            sizes[attribute] = (sizes.get(attribute, (before[attribute], value))[0], value)
        joined = self.plans[-1].then(cut.plan) if self.plans else cut.plan
        plans = (*self.plans[:-1], joined) if joined is not None else (*self.plans, cut.plan)
        dense = {name: tuple(mask.shape) for name, mask in cut.masks.items()} | dict(self.dense)
        known = None if max_error is None or self.max_error is None else max(self.max_error, max_error)
        return Structure(plans, sizes, dense, known)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        sizes = [[a.module, a.name, a.index, *values] for a, values in sorted(self.sizes.items())]
        plans = [plan.to_dict() for plan in self.plans]
        dense = {name: list(shape) for name, shape in self.dense.items()}
        return {
            "version": VERSION,
            "plans": plans,
            "sizes": sizes,
            "dense": dense,
            "max_error": self.max_error,
        }

    @classmethod
    def from_dict(cls, data: object) -> "Structure":
        """The structure that `to_dict` gave.

        Raises:
            PruningError: it is of another version or malformed.
        """
        wanted = {"plans": list, "sizes": list, "dense": dict}
        if not isinstance(data, dict) or not all(isinstance(data.get(k), t) for k, t in wanted.items()):
            raise PruningError(
                "the structure of a pruned network is a JSON object with 'version', 'plans', 'sizes' "
                "and 'dense'"
            )
        if data.get("version") != VERSION:
            raise PruningError(
                f"the structure has version {data.get('version')!r}; "
                f"this release reads version {VERSION}: update seg_pruning"
            )
        sizes = {}
        for entry in data["sizes"]:
            if not _is_size(entry):
                raise PruningError(
                    f"a rewritten size is [module, attribute, index, dense, now], not {entry!r:.100}"
                )
            module, name, index, dense, now = entry
            sizes[Attribute(module, name, index)] = (dense, now)
        for name, shape in data["dense"].items():
            if not isinstance(shape, list) or not all(type(size) is int and size > 0 for size in shape):
                raise PruningError(f"the dense shape of {name!r} is a list of sizes, not {shape!r:.100}")
        error = data.get("max_error")
        if error is not None and type(error) not in (int, float):
            raise PruningError(
                f"the largest error of the certificates is a number or null, not {error!r:.100}"
            )
        return cls(tuple(map(Plan.from_dict, data["plans"])), sizes, data["dense"], error)


def _is_size(entry: object) -> bool:
    if not isinstance(entry, list) or len(entry) != 5:
        return False
    module, name, index, dense, now = entry
    ints = all(type(v) is int and v > 0 for v in (dense, now)) and (index is None or type(index) is int)
    return isinstance(module, str) and isinstance(name, str) and not name.startswith("_") and ints


def structure_of(model: nn.Module) -> Structure | None:
    """What has been removed from `model`; None for a dense network."""
    # The note travels with the network: deep copies (averaged weights, a teacher) are pruned networks too.
    return cast(Structure | None, vars(model).get(_NOTE))


def remember_(model: nn.Module, structure: Structure | None) -> None:
    """Notes on the root module what has been removed."""
    vars(model).pop(_NOTE, None)
    if structure is not None:
        vars(model)[_NOTE] = structure


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
            tensor.data = torch.empty(shapes[name], dtype=tensor.dtype, device=tensor.device)
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
