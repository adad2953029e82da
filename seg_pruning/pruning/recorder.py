"""Listens to what layers put out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils.hooks import RemovableHandle

from seg_pruning.pruning.makers import Maker


@dataclass
class Call:
    """One call of a layer.

    Attributes:
        maker: The layer.
        handed: The tensor that the network goes on with: a copy, since ops in place may overwrite it.
        version: How often it had been overwritten by then.
        value: What is scored: the output of the layer, or that of the norm that got this very tensor.
        edge: Where its gradient arrives; `None` where none does.
        own: The same for the output of the layer.
        normed: Whether a norm took over.
    """

    maker: Maker
    handed: Tensor
    version: int
    value: Tensor
    edge: GradientEdge | None
    own: GradientEdge | None
    normed: bool = False


class Recorder:
    """Notes the calls of the layers that make channels, during one forward pass."""

    def __init__(self, makers: Iterable[Maker]) -> None:
        self.makers = list(makers)
        self.calls: list[Call] = []
        self._open: dict[int, Call] = {}
        self._norming: dict[nn.Module, tuple[Call, bool]] = {}

    @contextmanager
    def listening(self, model: nn.Module) -> Iterator[None]:
        """Hooks are there inside, and gone afterwards, whatever happens."""
        handles: list[RemovableHandle] = []
        try:
            for maker in self.makers:
                handles.append(maker.module.register_forward_hook(partial(self._on_output, maker)))
            for norm in model.modules():
                if isinstance(norm, (_BatchNorm, _InstanceNorm)):
                    handles += self._hooks_of_norm(norm)
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._open.clear()
            self._norming.clear()

    def _on_output(self, maker: Maker, module: nn.Module, args: object, output: object) -> Tensor | None:
        """Notes what a layer puts out, and hands the network a copy of it."""
        if not isinstance(output, Tensor):
            return None
        handed, edge = _copy(output), _edge(output)
        call = Call(maker, handed, handed._version, output.detach(), edge, edge)
        self.calls.append(call)
        self._open[id(handed)] = call
        return handed

    def _hooks_of_norm(self, norm: nn.Module) -> list[RemovableHandle]:
        inside = partial(self._inside_norm, norm)
        inner = [child.register_forward_pre_hook(inside) for child in norm.children()]
        return [
            norm.register_forward_pre_hook(self._before_norm),
            *inner,
            norm.register_forward_hook(self._after_norm),
        ]

    def _before_norm(self, norm: nn.Module, args: tuple[object, ...]) -> None:
        """Notes a norm that gets just what a layer handed on, over the channels that the layer makes."""
        call = self._open.get(id(args[0])) if args else None
        if call is None or call.handed is not args[0] or call.normed:
            return
        over_channels = call.handed.dim() + call.maker.axis == 1
        if over_channels and call.handed._version == call.version:
            self._norming[norm] = (call, False)

    def _inside_norm(
        self, norm: nn.Module, child: nn.Module, args: tuple[object, ...]
    ) -> tuple[object, ...] | None:
        """A norm with an activation of its own inside: what counts is what that gets."""
        call, taken = self._norming.get(norm, (None, False))
        if call is None or taken or not args or not isinstance(args[0], Tensor):
            return None
        self._norming[norm] = (call, True)
        return (_take(call, args[0]), *args[1:])

    def _after_norm(self, norm: nn.Module, args: object, output: object) -> Tensor | None:
        """Scores what the norm puts out, unless what is inside of it was taken already."""
        call, taken = self._norming.pop(norm, (None, False))
        return _take(call, output) if call is not None and not taken and isinstance(output, Tensor) else None


def _take(call: Call, output: Tensor) -> Tensor:
    """Scores what a norm puts out in place of what the layer does."""
    call.value, call.edge, call.normed = output.detach(), _edge(output), True
    return _copy(output)


def undo_shared(calls: Sequence[Call], roots: Sequence[Tensor]) -> None:
    """Goes back to the layer's own output where more than its norm reads it: the filter is all of that.

    The pre-activation form of residual networks adds the tensor that a norm gets.
    """
    normed = [call for call in calls if call.normed and call.handed.grad_fn is not None]
    readers = _readers(roots) if normed else Counter()
    for call in normed:
        assert call.handed.grad_fn is not None
        if readers[call.handed.grad_fn] > 1:
            # Nothing has overwritten it: the norm's backward pass needs it as it was.
            call.value, call.edge, call.normed = call.handed.detach(), call.own, False


def _readers(roots: Sequence[Tensor]) -> Counter[Node]:
    """How many ops read the result of each, among those that `roots` depend on."""
    found: Counter[Node] = Counter()
    waiting = [root.grad_fn for root in roots if root.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        read = [node for node, _ in waiting.pop().next_functions if node is not None]
        found.update(read)
        waiting += set(read) - seen
        seen.update(read)
    return found


def _edge(tensor: Tensor) -> GradientEdge | None:
    return get_gradient_edge(tensor) if tensor.requires_grad else None


def _copy(tensor: Tensor) -> Tensor:
    """The same for the network, also for the gradient, in memory of its own."""
    return tensor.clone(memory_format=torch.preserve_format)
