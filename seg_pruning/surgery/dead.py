"""Modules that never run: a decoder of depth 3 leaves the deeper stages of its encoder idle."""

from torch import nn

from seg_pruning.surgery.graph import ChannelGraph


def dead_modules(model: nn.Module, graph: ChannelGraph) -> tuple[str, ...]:
    """The outermost modules whose every parameter is idle in eval mode and in train mode.

    Gives none where the network did not run in train mode when it was traced (a forward that wants targets,
    say): what training needs is then not known.
    """
    return _outermost(model, set(graph.idle)) if graph.trace.training_known else ()


def _outermost(model: nn.Module, idle: set[str]) -> tuple[str, ...]:
    found: list[str] = []
    for path, module in model.named_modules():
        names = [f"{path}.{name}" for name, _ in module.named_parameters()]
        inside = any(path.startswith(f"{above}.") for above in found)
        if path and names and not inside and idle.issuperset(names):
            found.append(path)
    return tuple(found)
