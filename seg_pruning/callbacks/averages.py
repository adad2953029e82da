"""Averaged copies of the network (EMA, SWA) follow it: through each cut, each checkpoint and each way back.

Known are the callbacks of Lightning, and every `torch.optim.swa_utils.AveragedModel` that a callback holds or
that is part of the module, whether it averages all of the module or a part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.hooks import RemovableHandle

from seg_pruning.packages import of_kind, twins
from seg_pruning.surgery.apply import Journal, commit_
from seg_pruning.surgery.cut import Cut
from seg_pruning.surgery.note import structure_of
from seg_pruning.surgery.passes import tensors_of
from seg_pruning.surgery.rebuilding import all_tensors, restructure_
from seg_pruning.surgery.structure import Structure


@dataclass(frozen=True)
class Average:
    """One averaged copy.

    Attributes:
        name: tells it from others of the trainer.
        copy: the network of averaged weights.
        count: how many were averaged; None where there was none yet.
    """

    name: str
    copy: nn.Module
    count: Tensor | None


def averages_of(trainer: L.Trainer) -> list[Average]:
    """The averaged copies that callbacks of a trainer hold now."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined] # Lightning does not type it
    found = [
        Average(f"{callback.state_key}.{name}", value.module, value.n_averaged)
        for callback in callbacks
        for name, value in vars(callback).items()
        if isinstance(value, AveragedModel)
    ]
    for callback in of_kind(callbacks, StochasticWeightAveraging):
        if callback._average_model is not None:  # Lightning gives no other way to it
            found.append(Average(callback.state_key, callback._average_model, callback.n_averaged))
    return found


@contextmanager
def following_(trainer: L.Trainer, network: nn.Module, cut: Cut) -> Iterator[None]:
    """Cuts the averaged copies as `network` is cut within the block; where that fails, they are as before.

    Args:
        trainer: the training.
        network: its module, or the part of it that the cut is for.
        cut: what is cut.
    """
    module, copies = trainer.lightning_module, _copies(trainer)
    at = next(path for path, each in module.named_modules() if each is network)
    shares = [_share(copy, path, at, cut) for copy in copies for path in _origins(copy, module, but=copies)]
    with Journal() as journal:
        for target, part in filter(None, shares):
            commit_(journal, target, part, optimizers=(), max_error=None)
        yield


def _copies(trainer: L.Trainer) -> list[nn.Module]:
    """Those of callbacks, and those that are part of the module."""
    inside = [each.module for each in trainer.lightning_module.modules() if isinstance(each, AveragedModel)]
    copies = [*(average.copy for average in averages_of(trainer)), *inside]
    return list(dict.fromkeys(copies))


def _origins(
    copy: nn.Module, module: nn.Module, *, but: Collection[nn.Module] = (), loading: bool = False
) -> list[str]:
    """The name of the module of which `copy` is an average; none where it is of nothing in `module`.

    It is of the copy's type, and its tensors are of the copy's shapes: of its dense ones while `module` has
    the widths of a file already. Where several are (a student and a teacher), it is the nearest in values; of
    those that are as near, one that was cut.
    """
    same = _dense_shapes if loading else _shapes
    shapes = same(copy)
    found = {
        path: each
        for path, each in module.named_modules()
        if type(each) is type(copy) and each not in but and same(each) == shapes
    }
    if len(found) < 2:
        return list(found)
    return [min(found, key=lambda path: (_distance(copy, found[path]), structure_of(found[path]) is None))]


def _distance(one: nn.Module, other: nn.Module) -> float:
    """The mean square, over the tensors that are as wide in both."""
    theirs = tensors_of(other)
    pairs = [(mine.detach(), theirs[name].detach()) for name, mine in tensors_of(one).items()]
    squares = [(a.double() - b.to(a.device, torch.float64)) ** 2 for a, b in pairs if a.shape == b.shape]
    return float(sum(square.sum() for square in squares)) / max(1, sum(map(torch.numel, squares)))


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors_of(module).items()}


def _dense_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    dense = (structure_of(module) or Structure()).dense
    return {name: tuple(dense.get(name, tensor.shape)) for name, tensor in tensors_of(module).items()}


def _share(copy: nn.Module, origin: str, at: str, cut: Cut) -> tuple[nn.Module, Cut] | None:
    """What of `copy` is cut, and how, by a cut of the network at `at`; None where nothing is."""
    if f"{at}.".startswith(f"{origin}.") or not origin:
        return copy.get_submodule(at.removeprefix(origin).removeprefix(".")), cut
    if f"{origin}.".startswith(f"{at}.") or not at:
        part = cut.below(origin.removeprefix(at).removeprefix("."))
        return (copy, part) if part.masks or part.dropped else None
    return None


def follow_loads(module: L.LightningModule, *, instead_of: RemovableHandle | None) -> RemovableHandle:
    """From now on, whenever weights are loaded into `module`, averages that callbacks hold get its widths.

    Lightning loads averaged weights after those of the module: they then find copies that they fit.
    """
    if instead_of is not None:  # of a run that ended in an exception
        instead_of.remove()
    handle: RemovableHandle = module.register_load_state_dict_pre_hook(  # type: ignore[no-untyped-call]
        _resize_averages_
    )
    return handle


def _resize_averages_(module: nn.Module, values: Mapping[str, Tensor], *_: object) -> None:
    assert isinstance(module, twins(L.LightningModule))
    try:
        trainer = module.trainer
    except RuntimeError:  # a copy of the module, which has no trainer, took the hook along
        return
    for average in averages_of(trainer):
        for path in _origins(average.copy, module, loading=True):
            resize_like_(average.copy, module.get_submodule(path), values, f"{path}." if path else "")


def resize_like_(copy: nn.Module, network: nn.Module, values: Mapping[str, Tensor], prefix: str) -> None:
    """Gives a copy the widths of `network`, and where these differ the values that are about to be loaded.

    Args:
        copy: the copy.
        network: what it is a copy of.
        values: what is loaded, by name.
        prefix: of the names of `network` among them.
    """
    wanted, present = structure_of(network), structure_of(copy)
    if (wanted and wanted.to_dict()) == (present and present.to_dict()):
        return
    shapes = {name: tuple(tensor.shape) for name, tensor in all_tensors(network).items()}
    restructure_(copy, shapes, wanted)
    held = tensors_of(network)  # of what no state dict holds
    for name, tensor in tensors_of(copy).items():
        tensor.data.copy_(values.get(prefix + name, held[name].data))


def take(trainer: L.Trainer) -> dict[str, dict[str, Any]]:
    """The averages by name, for `restore_`: weights, and how many were averaged."""
    return {
        average.name: {
            "weights": dict(average.copy.state_dict()),
            "count": 0 if average.count is None else int(average.count),
        }
        for average in averages_of(trainer)
    }


def restore_(trainer: L.Trainer, held: Mapping[str, Mapping[str, Any]]) -> None:
    """Brings averages back to what `take` gave, once the module has its widths of then."""
    _resize_averages_(trainer.lightning_module, trainer.lightning_module.state_dict())
    for average in averages_of(trainer):
        if average.name in held:
            average.copy.load_state_dict(held[average.name]["weights"])
            if average.count is not None:
                average.count.fill_(held[average.name]["count"])


def save_weights(trainer: L.Trainer, path: Path) -> None:
    """Writes a checkpoint of weights alone: those that validation sees, which are the averages where it does.

    A full checkpoint holds them without this: Lightning's callback puts them there.
    """
    with shown(trainer):
        trainer.save_checkpoint(path, weights_only=True)


def transfer_(trainer: L.Trainer) -> None:
    """Ends a training with the averaged weights, as Lightning's callback does."""
    for average in _validated(trainer):
        _copy_(average.copy, trainer.lightning_module)


def restart_(trainer: L.Trainer) -> None:
    """Begins to average anew with the present weights; due where these are of another time."""
    for average in averages_of(trainer):
        for path in _origins(average.copy, trainer.lightning_module):
            _copy_(trainer.lightning_module.get_submodule(path), average.copy)
        if average.count is not None:
            average.count.zero_()


@contextmanager
def shown(trainer: L.Trainer) -> Iterator[bool]:
    """Within, the module has the weights that validation sees; gives whether they are others than its own."""
    validated = _validated(trainer)
    for average in validated:
        _swap_(average.copy, trainer.lightning_module)
    try:
        yield bool(validated)
    finally:
        for average in reversed(validated):
            _swap_(average.copy, trainer.lightning_module)


def _validated(trainer: L.Trainer) -> list[Average]:
    """The averages that stand in for the weights in each validation."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    keys = {callback.state_key for callback in of_kind(callbacks, WeightAveraging)}
    return [average for average in averages_of(trainer) if average.name.rpartition(".")[0] in keys]


def _copy_(source: nn.Module, target: nn.Module) -> None:
    values = tensors_of(source)
    for name, tensor in tensors_of(target).items():
        tensor.data.copy_(values[name].data)


def _swap_(one: nn.Module, other: nn.Module) -> None:
    theirs = tensors_of(other)
    for name, tensor in tensors_of(one).items():
        held = tensor.data.clone()
        tensor.data.copy_(theirs[name].data)
        theirs[name].data.copy_(held)
