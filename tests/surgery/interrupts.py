"""Errors injected anywhere, and everything about a network and its optimizers that they must not change."""

import copy
import sys
from collections import defaultdict
from types import CodeType
from typing import Any

import torch

from seg_pruning.surgery.note import structure_of


class Interrupted(BaseException):
    """What a user's Ctrl-C is."""


def snapshot(model, optimizers=(), identity=True):
    """Values, gradients, flags, modes, attributes, kinds of modules, structure and optimizer state, copied.

    With `identity` also which objects they are.
    """
    ids = [id(t) for t in (*model.parameters(), *model.buffers())]
    ids += [id(m) for m in model.modules()] + [id(v) for m in model.modules() for v in lists_of(m)]
    ids += [id(p) for optimizer in optimizers for g in optimizer.param_groups for p in g["params"]]
    tensors = {
        n: (t.detach().clone(), t.stride(), t.requires_grad, None if t.grad is None else t.grad.clone())
        for n, t in (*model.named_parameters(), *model.named_buffers())
    }
    attributes = {
        (path, name): copy.copy(value)
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, int | tuple | list)
    }
    modules = [(path, type(module), module.training) for path, module in model.named_modules()]
    states = [copy.deepcopy(optimizer.state_dict()) for optimizer in optimizers]
    return ids if identity else [], tensors, attributes, modules, states, structure_of(model)


def lists_of(module):
    return [value for value in vars(module).values() if type(value) is list]


def equal(a: Any, b: Any) -> bool:
    """Bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


class _Interrupter:
    """Counts the lines that run in some files and raises at one of them."""

    def __init__(self, files, at=None):
        self.files, self.at, self.count = files, at, 0
        self.where: dict[tuple[CodeType, int], list[int]] = defaultdict(list)

    def __call__(self, frame, event, argument):
        return self.line if frame.f_code.co_filename.endswith(self.files) else None

    def line(self, frame, event, argument):
        if event == "line":
            self.where[frame.f_code, frame.f_lineno].append(self.count)
            self.count += 1
            if self.count - 1 == self.at:
                raise Interrupted
        return self.line

    def run(self, action):
        before = sys.gettrace()
        sys.settrace(self)
        try:
            action()
        finally:
            sys.settrace(before)


def interrupted_everywhere(start, files):
    """Interrupts an action at each line of `files` that it runs, when it comes there first and last.

    Asserts that each interrupt leaves all as it was, or, right at the end, all as it becomes.

    Args:
        start: makes an action anew, and what takes a snapshot of what it acts on.
        files: ends of the names of the files.

    Returns:
        The number of lines.
    """
    files = tuple(f"surgery/{name}" for name in files)
    action, look = start()
    before = look()
    counter = _Interrupter(files)
    counter.run(action)
    after = look()
    assert not equal(before, after)
    moments = sorted({k for times in counter.where.values() for k in (times[0], times[-1])})
    complete = 0
    action, look = start()
    for moment in moments:
        interrupter = _Interrupter(files, moment)
        try:
            interrupter.run(action)
        except Interrupted:
            now = look()
        else:
            raise AssertionError(f"line {moment} of {counter.count} was not reached")
        if not equal(now, before):
            code, line = next(w for w, times in interrupter.where.items() if interrupter.count - 1 in times)
            assert equal(now, after), f"half done after an interrupt at {code.co_filename}:{line}"
            complete += 1
            action, look = start()
    assert complete <= 3
    return len(counter.where)
