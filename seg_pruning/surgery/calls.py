"""What a pass is seen to do: torch functions as Python calls them, and the ATen ops that they run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from seg_pruning.surgery.entries import Call
from seg_pruning.surgery.expressions import Extent
from seg_pruning.surgery.inputs import flatten_tensors
from seg_pruning.surgery.ledger import Ledger
from seg_pruning.surgery.rules import apply_rule
from seg_pruning.surgery.rules.attention import hold_width, note_root
from seg_pruning.surgery.sizes import Shape, Size
from seg_pruning.surgery.storages import Storages


@dataclass(frozen=True, slots=True)
class _Frame:
    """A torch function as Python called it."""

    name: str
    arguments: object = ()

    @property
    def ints(self) -> Sequence[int]:
        """The ints that Python passed, in order."""
        return _ints(self.arguments)


class FunctionCalls(TorchFunctionMode):
    """Sees each torch function as Python calls it, with the ints that it passes.

    Args:
        ledger: where it is given, shapes that Python reads are sizes which remember what they measure.
    """

    def __init__(self, ledger: Ledger | None = None) -> None:
        super().__init__()
        self.ledger = ledger
        self.frames: list[_Frame] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self.ledger is not None and func in _LENGTHS:
            return _measured(func(*args, **kwargs), args[0], self.ledger, func, (*args[1:], *kwargs.values()))
        if self.ledger is not None and func is F.scaled_dot_product_attention:
            _note_scale(self.ledger, args, kwargs)
        if func is F.multi_head_attention_forward:
            with self:
                return _SEEN_THROUGH(*args, **kwargs)
        self.frames.append(_Frame(getattr(func, "__name__", ""), (args, kwargs)))
        try:
            return func(*args, **kwargs)
        finally:
            self.frames.pop()


def _note_scale(ledger: Ledger, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Notes whether fused attention called like this takes its scale from a width, by itself or by Python."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if given.get("scale") is None:
        hold_width(ledger, given["query"], given["key"])
    else:
        note_root(ledger, given["query"], given["scale"])


# Under a function mode this one function of torch hands itself over whole, and with it the widths that it
# reads and passes. Called like this it does not, and each of its steps is seen.
_SEEN_THROUGH = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**vars(F), "has_torch_function": lambda _: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)


_SHAPE = Tensor.shape.__get__  # type: ignore[attr-defined]
_LENGTHS = (_SHAPE, Tensor.size, Tensor.numel)


def _measured(plain: Any, tensor: Tensor, ledger: Ledger, func: object, dims: tuple[Any, ...]) -> Any:
    """What reading a shape gave, as sizes; plain where nothing can leave."""
    lengths = _lengths(tensor, ledger)
    if all(type(length) is int for length in lengths):
        return plain
    shape = Shape(lengths)
    if func is Tensor.numel:
        return shape.numel()
    return shape[dims[0]] if dims and isinstance(dims[0], int) else shape


def _lengths(tensor: Tensor, ledger: Ledger) -> list[int]:
    """The shape of `tensor`, with a size that adapts by itself where channels can leave."""
    shape: list[int] = list(tensor.size())
    for array in ledger.labels(tensor):
        dim = ledger.narrowing(array)
        if dim is not None:
            shape[dim] = Size(int(shape[dim]), Extent(array, dim), ledger)
    return shape


def _ints(value: object) -> list[int]:
    """All ints in nested tuples, lists and dicts, in order."""
    if isinstance(value, bool):
        return []
    if isinstance(value, int):
        return [value]
    if isinstance(value, slice):
        value = (value.start, value.stop)
    if isinstance(value, Mapping):
        value = tuple(value.values())
    return [i for entry in value for i in _ints(entry)] if isinstance(value, tuple | list) else []


class Ops(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees each ATen op after it ran and lets its rule write into the ledger.

    Args:
        ledger: what the rules write into.
        functions: the functions that Python is inside of.
        storages: where it is given, what the ops make is followed in memory.
    """

    def __init__(self, ledger: Ledger, functions: FunctionCalls, *, storages: Storages | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ledger = ledger
        self.functions = functions
        self.storages = storages

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        now = len(self.ledger.ops)
        if self.storages is not None:
            self.storages.release(now)
        out = func(*args, **kwargs)
        self.ledger.ops.append(str(func))
        tensors = tuple(flatten_tensors((args, kwargs)))
        names = (self.ledger.named(tensor) for tensor in tensors)
        self.ledger.ran.update(name for name in names if name is not None)
        frame = self.functions.frames[-1] if self.functions.frames else _Frame("")
        arguments, outputs = _arguments(func, args, kwargs), tuple(flatten_tensors(out))
        call = Call(func, arguments, tensors, outputs, frame.ints, frame.name)
        apply_rule(self.ledger, call)
        if self.storages is not None:
            self.storages.made(now, tensors, ((t, self.ledger.labels(t)) for t in outputs))
        return out


def _arguments(
    func: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    schema = func._schema.arguments
    given = {argument.name: value for argument, value in zip(schema, args, strict=False)}
    rest = {a.name: kwargs.get(a.name, a.default_value) for a in schema if a.name not in given}
    return {**given, **rest}
