"""A network as it was found, whatever its forward pass writes into it.

A forward pass may count its calls, keep a feature map or fill a cache. A pass that only looks at a network
must leave none of that behind.
"""

import copy
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from seg_pruning.surgery.note import remember_, structure_of

_Container: TypeAlias = dict[Any, Any] | list[Any] | set[Any]


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Within, `model` may be changed by running it; afterwards modes, attributes and buffers are as before.

    Put back are the attributes of every module, the contents of those that are lists, dicts or sets, and the
    values of buffers. What hangs deeper in an attribute, and the values of parameters, are not looked at.
    """
    modes = [(module, module.training) for module in model.modules()]
    contents = _contents(model)
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for container, found in contents:
            _refill_(container, found)
        for module, mode in modes:
            if module.training != mode:  # a scripted module does not keep it among its attributes
                module.training = mode
        for buffer, value in buffers:
            _rewrite_(buffer, value)


@contextmanager
def unless_it_fails(model: nn.Module) -> Iterator[None]:
    """Within, `model` may be rewritten; when the block ends in an exception, it is as it was before.

    Put back are attributes, the modules and tensors that each module holds, their values and gradients. It
    holds a copy of all values meanwhile.
    """
    contents = _contents(model)
    values = [(t, t.data, t.detach().clone(), t.grad) for t in (*model.parameters(), *model.buffers())]
    structure = structure_of(model)
    try:
        yield
    except BaseException:
        for container, found in contents:
            _refill_(container, found)
        for tensor, data, value, grad in values:
            tensor.grad = None  # torch compares shapes when either is set
            tensor.data = data
            tensor.grad = grad
            _rewrite_(data, value)
        remember_(model, structure)  # what is around the network shares the note
        raise


def _contents(model: nn.Module) -> list[tuple[_Container, Collection[Any]]]:
    # Most are empty, in thousands of modules: copies of these would wake the garbage collector.
    return [(container, copy.copy(container) if container else ()) for container in _containers(model)]


def _containers(model: nn.Module) -> Iterator[_Container]:
    for module in model.modules():
        yield vars(module)
        yield from (value for value in vars(module).values() if type(value) in (dict, list, set))


def _refill_(container: _Container, found: Any) -> None:
    container.clear()
    if isinstance(container, list):
        container.extend(found)
    else:
        container.update(found)


def _rewrite_(buffer: Tensor, value: Tensor) -> None:
    # A write that changes nothing would still end a graph that holds the buffer for its backward pass.
    if not torch.equal(buffer, value):
        with torch.no_grad():
            buffer.copy_(value)
