"""Ints that Python reads, followed into the shapes that they decide.

A forward pass reads widths from attributes: `x.view(b, self.heads, -1)`, `F.conv2d(...,
groups=self.groups)`. While a network is traced each such attribute is a `Size`, an int that remembers where
it was read, so that a rule can say which attribute has to be rewritten when channels leave.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

SizeValue: TypeAlias = int | tuple[int, ...]


@dataclass(frozen=True, order=True, slots=True)
class Attribute:
    """An int held by a module: `model.get_submodule(module).<name>`, or an entry of a tuple or list."""

    module: str
    name: str
    index: int | None = None

    def __str__(self) -> str:
        path = f"{self.module}.{self.name}" if self.module else self.name
        return path if self.index is None else f"{path}[{self.index}]"


class Size(int):
    """An int that remembers the attribute it was read from; arithmetic gives plain ints."""

    attribute: Attribute

    def __new__(cls, value: int, attribute: Attribute) -> "Size":
        """An int of `value` that was read from `attribute`."""
        size = super().__new__(cls, value)
        size.attribute = attribute
        return size

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        """A copied or pickled size is a plain int: a forward pass may copy what it reads."""
        return int, (int(self),)


def _tracked(value: object, module: str, name: str) -> object | None:
    """`value` with its ints replaced by sizes, or None where it holds none that could be a width."""
    if type(value) is int and value > 1:
        return Size(value, Attribute(module, name))
    if type(value) in (tuple, list) and value and all(type(v) is int for v in value):  # type: ignore[attr-defined]
        entries = [Size(v, Attribute(module, name, i)) for i, v in enumerate(value)]  # type: ignore[arg-type, var-annotated]
        return tuple(entries) if type(value) is tuple else entries
    return None


@contextmanager
def tracked_sizes(model: nn.Module) -> Iterator[None]:
    """Within, every int attribute of every module of `model` is a `Size`; afterwards all is as it was."""
    originals: list[tuple[dict[str, Any], str, object]] = []
    for path, module in model.named_modules():
        for name, value in list(vars(module).items()):
            size = _tracked(value, path, name)
            if size is not None:
                originals.append((vars(module), name, value))
                vars(module)[name] = size
    try:
        yield
    finally:
        for attributes, name, value in originals:
            attributes[name] = value


def read(model: nn.Module, attribute: Attribute) -> int:
    """The value that `attribute` has now."""
    value = getattr(model.get_submodule(attribute.module), attribute.name)
    return int(value if attribute.index is None else value[attribute.index])


def write_(model: nn.Module, attribute: Attribute, value: int) -> None:
    """Sets `attribute`; an entry of a tuple or list is replaced in a new tuple or list of the same type."""
    module = model.get_submodule(attribute.module)
    if attribute.index is None:
        setattr(module, attribute.name, value)
        return
    entries = getattr(module, attribute.name)
    changed = [*entries[: attribute.index], value, *entries[attribute.index + 1 :]]
    setattr(module, attribute.name, type(entries)(changed))


def _of_convolution(module: _ConvNd, weight: tuple[int, ...], groups: int) -> dict[str, SizeValue]:
    first, second = weight[0], weight[1] * groups
    if isinstance(module, _ConvTransposeNd):
        first, second = second, first
    return {"out_channels": first, "in_channels": second}


def declared(
    module: nn.Module, shapes: Mapping[str, tuple[int, ...]], groups: int | None
) -> dict[str, SizeValue]:
    """The sizes that a torch.nn layer states about itself, given the shapes of its own tensors.

    Most are never read by a forward pass, but people and exporters read them.

    Args:
        module: the layer.
        shapes: shape of each parameter and buffer of the layer, by its name in the layer.
        groups: the number of groups that a convolution will have; None for what it has.
    """
    weight = shapes.get("weight")
    if isinstance(module, _ConvNd) and weight:
        return _of_convolution(module, weight, groups or module.groups)
    if isinstance(module, nn.Linear) and weight:
        return {"out_features": weight[0], "in_features": weight[1]}
    if isinstance(module, _NormBase) and (shape := weight or shapes.get("running_mean")):
        return {"num_features": shape[0]}
    if isinstance(module, nn.GroupNorm) and weight:
        return {"num_channels": weight[0]}
    if isinstance(module, nn.LayerNorm) and weight:
        return {"normalized_shape": weight}
    if isinstance(module, nn.Embedding) and weight:
        return {"num_embeddings": weight[0], "embedding_dim": weight[1]}
    if isinstance(module, nn.PReLU) and weight:
        return {"num_parameters": weight[0]}
    return {}
