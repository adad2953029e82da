"""What a network and some of its layers answer, call by call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from seg_pruning.surgery.inputs import flatten_tensors


@dataclass
class Call:
    """One call of a network.

    Attributes:
        args: positional arguments.
        kwargs: keyword arguments.
        output: what it answered.
        features: the first tensor that each watched layer put out, by name.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: object = None
    features: dict[str, Tensor] = field(default_factory=dict)


class Tap:
    """Notes the calls of a network while it is open.

    Args:
        network: the network.
        layers: names of layers of it.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str] = ()) -> None:
        self.calls: list[Call] = []
        self.open = False
        self._handles: list[RemovableHandle] = [
            network.register_forward_pre_hook(self._begin, with_kwargs=True),
            network.register_forward_hook(self._end),
        ]
        for name in layers:
            hook = partial(self._feature, name)
            self._handles.append(network.get_submodule(name).register_forward_hook(hook))

    def close(self) -> None:
        """Watches no more."""
        for handle in self._handles:
            handle.remove()

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.open:
            self.calls.append(Call(args, kwargs))

    def _end(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        if self.open and self.calls:
            self.calls[-1].output = output

    def _feature(self, name: str, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        if self.open and self.calls:
            self.calls[-1].features[name] = flatten_tensors(output)[0]
