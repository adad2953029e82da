"""The last batches that were trained on, and what the network was called with for each."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from seg_pruning.callbacks.compiling import EAGER, is_compiled
from seg_pruning.callbacks.ranks import wrapped
from seg_pruning.surgery.inputs import Inputs, map_tensors

Record = tuple[Inputs, object]
"""What the network was called with, and the batch that it was for; tensors on the CPU."""


class Recorder:
    """Keeps batches of training, on the CPU, so that nothing has to pass over the data a second time.

    What the network is called with is seen as it is called, after whatever the training step makes of the
    batch. Where the training step never calls the module itself but only parts of it, there is nothing to
    see, and `fallback` is asked for the arguments.

    Args:
        size: how many batches are kept at most.
    """

    def __init__(self, size: int) -> None:
        self.kept: deque[Record] = deque(maxlen=size)
        self.call: Inputs | None = None
        self._recording = False
        self._network: nn.Module | None = None
        self._compiled = False
        self._depth = self._least = 0
        self._handles: tuple[RemovableHandle, ...] = ()

    def attach(self, network: nn.Module, trainer: L.Trainer) -> None:
        """Watches the calls of `network`, which is the module of a training or a part of it."""
        self.detach()
        self._network, self._compiled = network, is_compiled(network, trainer.lightning_module)
        # A call by which Lightning reaches `training_step` is no call of the network; those inside it are.
        self._least = 2 if wrapped(trainer, network) else 1

    def detach(self) -> None:
        """Watches no more."""
        self._unhook()
        self._network = None

    def begin(self, *, record: bool) -> None:
        """A batch starts; whether it is to be kept."""
        self._unhook()
        self._recording = record
        # No hook is left on a network whose calls are not recorded: compiled code would contain it.
        if record and self._network is not None:
            self._handles = (
                self._network.register_forward_pre_hook(self._watch, with_kwargs=True),
                self._network.register_forward_hook(self._leave, always_call=True),
            )
            if self._compiled:
                EAGER.hold()

    def end(self, batch: object, fallback: Inputs | None) -> None:
        """The batch is over; kept is what the network was called with first, or else `fallback`."""
        call = self.call or (None if fallback is None else fallback.map(_copied))
        if self._recording and call is not None:
            self.kept.append((call, map_tensors(batch, _copied)))
        self._unhook()

    def _unhook(self) -> None:
        for handle in self._handles:
            handle.remove()
        if self._handles and self._compiled:
            EAGER.release()
        self._handles, self._depth, self.call, self._recording = (), 0, None, False

    def clear(self) -> None:
        """Forgets all batches."""
        self.kept.clear()

    def state_dict(self) -> list[dict[str, Any]]:
        """The batches, as far as they are plain types and tensors; none of them where one is not."""
        entries = [
            {"args": inputs.args, "kwargs": dict(inputs.kwargs), "batch": batch}
            for inputs, batch in self.kept
        ]
        return entries if is_plain(entries) else []

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Goes on with the batches that `state_dict` gave."""
        self.kept.clear()
        self.kept.extend((Inputs(tuple(entry["args"]), entry["kwargs"]), entry["batch"]) for entry in state)

    def _watch(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._depth += 1
        if self.call is None and self._depth >= self._least and torch.is_grad_enabled():
            self.call = Inputs(args, kwargs).map(_copied)  # at once: the network may write into it

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        self._depth -= 1


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


def is_plain(value: object) -> bool:
    """Whether torch can load it with `weights_only=True`."""
    if type(value) in (list, tuple):
        return all(map(is_plain, value))  # type: ignore[call-overload]
    if isinstance(value, Mapping):
        return type(value) is dict and all(map(is_plain, value)) and all(map(is_plain, value.values()))
    return value is None or type(value) in (Tensor, str, int, float, bool)
