"""Which modules put out the channels of which groups."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from seg_pruning.pruning.criteria.base import listed
from seg_pruning.pruning.criteria.members import channel_positions
from seg_pruning.surgery.errors import PruningError

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGraph, ChannelGroup, Member


@dataclass(frozen=True)
class Part:
    """Channels of one group among those that a layer puts out.

    Attributes:
        group: Its name.
        channels: Channels of the group, int64 `(P,)`.
        places: For each of them the layer's output channels, int64 `(P, k)`.
    """

    group: str
    channels: Tensor
    places: Tensor


@dataclass(frozen=True)
class Maker:
    """A layer that puts out channels of groups.

    Attributes:
        layer: Its name.
        module: The layer.
        axis: The dim of its output along which channels lie, counted from the end.
        parts: The channels.
    """

    layer: str
    module: nn.Module
    axis: int
    parts: tuple[Part, ...]


def makers_of(graph: ChannelGraph, model: nn.Module, *, unread: Collection[str] = ()) -> list[Maker]:
    """The convolutions, linear layers and embeddings that put out the channels of the prunable groups.

    Args:
        graph: The groups.
        model: The network.
        unread: Names of groups that are left out.

    Raises:
        PruningError: The channels of a group come of no such layer, but of a parameter that a module applies
            in a way of its own.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    found: dict[str, list[Part]] = {}
    unmade = []
    for group in graph.groups:
        if group.prunable and group.name not in unread:
            parts = _parts_of(group, modules)
            unmade += [] if parts else [group.name]
            for layer, part in parts.items():
                found.setdefault(layer, []).append(part)
    if unmade:
        raise PruningError(
            f"the channels of {listed(unmade)} come of no convolution, linear layer or embedding whose "
            "output could be looked at: protect them, or choose a criterion of weights, such as "
            "Taylor(of='weight')"
        )
    return [
        Maker(layer, modules[layer], _axis(modules[layer]), tuple(parts)) for layer, parts in found.items()
    ]


def _parts_of(group: ChannelGroup, modules: Mapping[str, nn.Module]) -> dict[str, Part]:
    """The channels of one group in the output of each layer that makes them."""
    found: dict[str, Part] = {}
    for member in group.members:
        layer = _layer(member)
        units = _output_units(modules.get(layer), member) if member.side == "out" else None
        if units is None or layer in found:
            continue
        try:
            found[layer] = Part(group.name, *channel_positions(units))
        except PruningError as error:
            raise PruningError(f"group {group.name!r}, layer {layer!r}: {error}") from error
    return found


def _layer(member: Member) -> str:
    """The module that holds a tensor, also where the tensor is computed from others."""
    outer, marker, _ = member.tensor.partition(".parametrizations.")
    return outer if marker else member.tensor.rpartition(".")[0]


def _output_units(module: nn.Module | None, member: Member) -> Tensor | None:
    """The channel of the group that each output channel of `module` is; `None` for other modules."""
    if isinstance(module, _ConvTransposeNd):
        return _transposed_units(module, member)
    made = {_ConvNd: 0, nn.Linear: 0, nn.Embedding: 1}
    dim = next((dim for kind, dim in made.items() if isinstance(module, kind)), None)
    return member.units if member.dims == (dim,) else None


def _transposed_units(module: _ConvTransposeNd, member: Member) -> Tensor | None:
    """Of a transposed convolution: outputs of each block of inputs, end to end."""
    if member.dims == (1,):
        return member.units.repeat(module.groups)
    if member.dims != (0, 1):
        return None
    blocks = member.units.reshape(module.groups, -1, member.units.shape[1])
    return blocks[:, 0].reshape(-1)


def _axis(module: nn.Module) -> int:
    """Channels are last, or before the spatial dims."""
    return -1 - len(module.kernel_size) if isinstance(module, _ConvNd) else -1
