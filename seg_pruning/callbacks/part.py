"""Which network of a LightningModule is pruned, and what else is."""

from __future__ import annotations

from collections.abc import Iterable

import lightning as L
from torch import nn
from torch.optim import Optimizer
from typing_extensions import override

from seg_pruning.packages import twins
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.graph import ChannelGraph


class OfPart(L.Callback):
    """A callback that prunes one network of a LightningModule; others may prune others.

    Args:
        module: the name of the part; see `network_of`.
    """

    def __init__(self, module: str) -> None:
        super().__init__()
        self.module = module
        self._network: nn.Module | None = None

    @property
    @override
    def state_key(self) -> str:
        """What its state is called in checkpoints: several callbacks differ by the part that they prune."""
        return self._generate_state_key(module=self.module) if self.module else super().state_key

    @property
    def network(self) -> nn.Module:
        """The network that is pruned, known once training has begun."""
        assert self._network is not None
        return self._network

    def take(self, network: nn.Module) -> None:
        """Goes on with this network."""
        self._network = network

    def others(self, trainer: L.Trainer) -> list[OfPart]:
        """The callbacks that prune other parts."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined] # Lightning does not type it
        return [each for each in callbacks if isinstance(each, OfPart) and each is not self]

    def part(self, trainer: L.Trainer) -> str:
        """The name of what is pruned, where other parts are pruned too; empty where not."""
        return self.module if self.others(trainer) else ""


def network_of(module: L.LightningModule, name: str) -> nn.Module:
    """The network that is pruned.

    Args:
        module: the user's module.
        name: of a part of it, such as ``"student"`` or ``"nets.0"``. Without one it is the module itself; or,
            where that has no `forward` of its own, the one part of it that has parameters.

    Raises:
        PruningError: there is no such part, it has no parameters, or none was named and several could be
            meant.

    Example:
        >>> class Task(L.LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net, self.loss = nn.Conv2d(3, 1, 1), nn.MSELoss()
        >>> task = Task()
        >>> network_of(task, "") is task.net
        True
    """
    if name:
        return _named(module, name)
    if _has_forward(module):
        return module
    networks = [child for child, part in module.named_children() if _trains(part)]
    if len(networks) != 1:
        raise PruningError(
            f"{type(module).__name__} has no forward of its own, and {len(networks)} parts with parameters: "
            f"{_listed(networks)}. Say which is pruned, IterativePruning(module=...), or write a forward "
            "that calls them as training does"
        )
    only: nn.Module = module.get_submodule(networks[0])
    return only


def count(module: nn.Module) -> int:
    """Parameters of a network: by them the network of an earlier training is known again."""
    return sum(parameter.numel() for parameter in module.parameters())


def trains(optimizer: Optimizer, graph: ChannelGraph, network: nn.Module) -> bool:
    """Whether `optimizer` trains a weight whose channels may leave.

    At the steps of others the gradients of these are stale, or are of another loss.
    """
    trained = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    cut = {member.tensor for group in graph.prunable for member in group.members}
    return any(id(weight) in trained for name, weight in network.named_parameters() if name in cut)


def _named(module: L.LightningModule, name: str) -> nn.Module:
    parts: dict[str, nn.Module] = {
        path: part for path, part in module.named_modules() if path and _trains(part)
    }
    if name not in parts:
        near = [path for path in parts if "." not in path]
        raise PruningError(
            f"module={name!r} names no part of {type(module).__name__} that has parameters; it has "
            f"{_listed(near)}, and parts of these by their paths"
        )
    return parts[name]


def _has_forward(module: L.LightningModule) -> bool:
    """Whether the user wrote a `forward`, in the class or on the object."""
    empty = [nn.Module.forward, *(kind.forward for kind in twins(L.LightningModule))]
    return "forward" in vars(module) or type(module).forward not in empty


def _trains(part: nn.Module) -> bool:
    return any(True for _ in part.parameters())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(list(names)[:10]) or "none"
