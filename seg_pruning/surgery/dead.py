"""Modules that never run: a decoder of depth 3 leaves the deeper stages of its encoder idle."""

from collections.abc import Mapping, Set

from torch import nn

from seg_pruning.surgery.graph import ChannelGraph
from seg_pruning.surgery.rebuilding import all_tensors


def dead_modules(model: nn.Module, graph: ChannelGraph) -> tuple[str, ...]:
    """The outermost modules with parameters of whose tensors none is read, in eval mode or in train mode.

    A module that stands elsewhere too, or shares a tensor with what is outside of it, is left alone. A
    parameter that never runs in a module that does stays: the module's code may name it.

    Gives none where the network did not run in train mode when it was traced (a forward that wants targets,
    say): what training needs is then not known.
    """
    return _outermost(model, graph.trace.ran) if graph.trace.training_known else ()


def _outermost(model: nn.Module, ran: Set[str]) -> tuple[str, ...]:
    names: dict[int, list[str]] = {}
    for name, tensor in all_tensors(model).items():
        names.setdefault(id(tensor), []).append(name)
    found: list[str] = []
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{above}.") for above in found)
        if path and not inside and _is_dead(path, module, names, ran):
            found.append(path)
    return tuple(found)


def _is_dead(path: str, module: nn.Module, names: Mapping[int, list[str]], ran: Set[str]) -> bool:
    own = [name for tensor in all_tensors(module).values() for name in names[id(tensor)]]
    return (
        any(True for _ in module.parameters())
        and all(name.startswith(f"{path}.") for name in own)
        and ran.isdisjoint(own)
    )
