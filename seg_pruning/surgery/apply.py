"""The one writer: what a cut decided is written into the network and its optimizers, all of it or nothing."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from seg_pruning.surgery.cut import Cut, kept_shape
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.expressions import Attribute
from seg_pruning.surgery.note import remember_, structure_of
from seg_pruning.surgery.optimizer import cut_states, forget_sizes, without_parameters
from seg_pruning.surgery.passes import tensors_of
from seg_pruning.surgery.sizes import SizeValue, declared, read, write_
from seg_pruning.surgery.structure import Structure


class Journal:
    """Writes, each with what undoes it; rolled back in reverse order.

    As a context manager it rolls back when the block ends in any exception, an interrupt included.
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self.roll_back()

    def write(self, do: Callable[[], object], undo: Callable[[], object]) -> None:
        """Does something after noting how it is undone; undoing it has to be right before it is done too."""
        self._undo.append(undo)
        do()

    def roll_back(self) -> None:
        """Leaves everything as it was before the first write; an interrupt waits until that is done."""
        interrupt: KeyboardInterrupt | None = None
        while self._undo:
            try:
                self._undo[-1]()
                self._undo.pop()
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt


def apply_(model: nn.Module, cut: Cut, *, optimizers: Iterable[Optimizer] = ()) -> None:
    """Removes from `model` what `cut` removes, and from the state of its optimizers.

    Parameters stay the objects that they are; flags, modes, hooks, dtype, device and memory format stay too.
    Nothing is checked against the masked original here: `prune_` does that.

    Raises:
        PruningError: the cut is for another network, or a gradient or an optimizer's state cannot be carried;
            nothing has changed then.
    """
    with Journal() as journal:
        commit_(journal, model, cut, optimizers=tuple(optimizers), max_error=None)


def commit_(
    journal: Journal,
    model: nn.Module,
    cut: Cut,
    *,
    optimizers: tuple[Optimizer, ...],
    max_error: float | None,
) -> None:
    """`apply_` through a journal, which the caller rolls back where anything goes wrong."""
    tensors = _checked(model, cut)
    new = {name: cut.tensor(name, tensors[name].data) for name in cut.masks}
    grads = {
        name: cut.tensor(name, g, gradient=True) for name in new if (g := tensors[name].grad) is not None
    }
    by_tensor = {tensors[name]: mask for name, mask in cut.masks.items()}
    states = [(state, key, value) for opt in optimizers for state, key, value in cut_states(opt, by_tensor)]
    old_sizes = {attribute: read(model, attribute) for attribute in cut.sizes}
    _resize_attributes(journal, model, cut)
    for name, value in new.items():
        _swap_data(journal, tensors[name], value, grads.get(name))
    for state, key, value in states:
        journal.write(partial(state.__setitem__, key, value), partial(state.__setitem__, key, state[key]))
    _drop_modules(journal, model, cut.dropped, optimizers)
    for optimizer in optimizers:
        forget_sizes(optimizer, journal.write)
    _note_structure(journal, model, cut, old_sizes, max_error)


def _checked(model: nn.Module, cut: Cut) -> dict[str, Tensor]:
    tensors = tensors_of(model)
    for name, mask in cut.masks.items():
        have = tuple(tensors[name].shape) if name in tensors else None
        if have != tuple(mask.shape):
            raise PruningError(
                f"the cut is for {name!r} of shape {tuple(mask.shape)}, but the network has "
                f"{have or 'no such tensor'}: trace this network and plan anew"
            )
    sparse = [n for n in cut.masks if (g := tensors[n].grad) is not None and g.layout != torch.strided]
    if sparse:
        raise PruningError(
            f"the gradients of {', '.join(sparse[:10])} are sparse and cannot be carried through a cut; call "
            "optimizer.zero_grad() before pruning, or build the layers with sparse=False"
        )
    return tensors


def _swap_data(journal: Journal, tensor: Tensor, value: Tensor, grad: Tensor | None) -> None:
    old_value, old_grad = tensor.data, tensor.grad

    def put(data: Tensor, gradient: Tensor | None) -> None:
        """Gives the tensor other data and another gradient, whatever their shapes."""
        tensor.grad = None  # torch compares shapes when either is set
        if isinstance(tensor, nn.Parameter):
            # A loss that is still alive keeps the node that accumulates the gradient, of the old shape. Torch
            # makes a new one only after a change of dtype.
            other = torch.float32 if data.dtype == torch.float16 else torch.float16
            tensor.data = torch.empty(0, dtype=other, device=data.device)
        tensor.data = data
        tensor.grad = gradient

    journal.write(lambda: put(value, grad), lambda: put(old_value, old_grad))


def _resize_attributes(journal: Journal, model: nn.Module, cut: Cut) -> None:
    for attribute, value in cut.sizes.items():
        module = model.get_submodule(attribute.module)
        held = getattr(module, attribute.name)  # a list is replaced as a whole: the same one comes back
        journal.write(
            partial(write_, model, attribute, value), partial(setattr, module, attribute.name, held)
        )
    for module, sizes in stated_sizes(model, cut).items():
        for name, stated in sizes.items():
            before = getattr(module, name)
            journal.write(partial(setattr, module, name, stated), partial(setattr, module, name, before))


def stated_sizes(model: nn.Module, cut: Cut) -> Mapping[nn.Module, Mapping[str, SizeValue]]:
    """What each torch.nn layer that `cut` changes will state about its own size."""
    stated = {}
    for path in dict.fromkeys(name.rpartition(".")[0] for name in cut.masks):
        module = model.get_submodule(path)
        prefix = f"{path}." if path else ""
        shapes = {
            name: kept_shape(mask)
            if (mask := cut.masks.get(prefix + name)) is not None
            else tuple(tensor.shape)
            for name, tensor in (*module._parameters.items(), *module._buffers.items())
            if tensor is not None
        }
        groups = next((v for a, v in cut.sizes.items() if (a.module, a.name) == (path, "groups")), None)
        stated[module] = declared(module, shapes, groups)
    return stated


def _drop_modules(
    journal: Journal, model: nn.Module, paths: tuple[str, ...], optimizers: tuple[Optimizer, ...]
) -> None:
    gone = {p for path in paths for p in model.get_submodule(path).parameters()}
    for path in paths:
        parent, _, name = path.rpartition(".")
        holder = model.get_submodule(parent)._modules
        journal.write(
            partial(holder.__setitem__, name, nn.Identity()), partial(holder.__setitem__, name, holder[name])
        )
    for optimizer in optimizers if gone else ():
        without_parameters(optimizer, gone, journal.write)


def _note_structure(
    journal: Journal, model: nn.Module, cut: Cut, old_sizes: Mapping[Attribute, int], max_error: float | None
) -> None:
    before = structure_of(model)
    after = (before or Structure()).followed_by(cut, old_sizes, max_error)
    journal.write(lambda: remember_(model, after), lambda: remember_(model, before))


@contextmanager
def resized(model: nn.Module, cut: Cut) -> Iterator[None]:
    """Within, the attributes of `model` have the sizes that `cut` gives them; its tensors are untouched."""
    journal = Journal()
    try:
        _resize_attributes(journal, model, cut)
        yield
    finally:
        journal.roll_back()
