"""One forward pass, read op by op: which channels are tied, which are pinned, which sizes follow."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from seg_pruning.surgery.coupling import couplings
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.inputs import ExampleInputs, Inputs, flatten_tensors
from seg_pruning.surgery.labels import LabelArray, components
from seg_pruning.surgery.ledger import Blocks, Call, Fit, Ledger, Mint, Role, Site, Work
from seg_pruning.surgery.rules import apply_rule
from seg_pruning.surgery.rules.attention import hold_width
from seg_pruning.surgery.sizes import Attribute, Shape, tracked_sizes
from seg_pruning.surgery.untouched import untouched


@dataclass(frozen=True)
class Trace:
    """What one pass said, as plain data.

    Attributes:
        shapes: dense shape of each parameter and buffer, by name.
        parameters: names of the parameters, in the module's order.
        ran: names of the tensors that some op read, in eval or in train mode.
        training_known: whether it ran in train mode too, where some parameter is idle without it.
        count: number of labels; `FIXED` is label 0.
        ops: names of all ops, in order: a second pass must run the same.
    """

    shapes: Mapping[str, tuple[int, ...]]
    parameters: tuple[str, ...]
    ran: frozenset[str]
    training_known: bool
    count: int
    mints: tuple[Mint, ...]
    roles: Mapping[int, Role]
    ties: tuple[tuple[LabelArray, LabelArray], ...]
    pins: tuple[tuple[LabelArray, str], ...]
    blocks: tuple[Blocks, ...]
    fits: tuple[Fit, ...]
    sizes: Mapping[Attribute, int]
    work: tuple[Work, ...]
    sites: Mapping[int, Site]
    scaled: Mapping[int, tuple[tuple[LabelArray, int], ...]]
    follows: frozenset[int]
    ops: tuple[str, ...]

    @cached_property
    def parameter_set(self) -> frozenset[str]:
        """The names of `parameters`, for look-up."""
        return frozenset(self.parameters)


@dataclass(frozen=True, slots=True)
class _Frame:
    """A torch function as Python called it."""

    name: str
    ints: Sequence[int]


class FunctionCalls(TorchFunctionMode):
    """Sees each torch function as Python calls it, with the ints that it passes.

    Args:
        ledger: where it is given, shapes that Python reads are sizes which remember what they measure.
    """

    def __init__(self, ledger: Ledger | None = None) -> None:
        super().__init__()
        self.ledger = ledger
        self.attentions = 0
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
        if func is scaled_dot_product_attention and len(args) < 7 and kwargs.get("scale") is None:
            self._hold_width(*args[:2], **kwargs)
        self.frames.append(_Frame(getattr(func, "__name__", ""), _ints((args, kwargs))))
        try:
            return func(*args, **kwargs)
        finally:
            self.frames.pop()

    def _hold_width(self, query: Tensor, key: Tensor, **_: object) -> None:
        number, self.attentions = self.attentions, self.attentions + 1
        if self.ledger is not None:
            hold_width(self.ledger, number, query, key)


_SHAPE = Tensor.shape.__get__  # type: ignore[attr-defined]
_LENGTHS = (_SHAPE, Tensor.size, Tensor.numel)


def _measured(plain: Any, tensor: Tensor, ledger: Ledger, func: object, dims: tuple[Any, ...]) -> Any:
    """What reading a shape gave, as sizes; plain where nothing can leave."""
    lengths = ledger.lengths(tensor)
    if all(type(length) is int for length in lengths):
        return plain
    shape = Shape(lengths)
    if func is Tensor.numel:
        return shape.numel()
    return shape[dims[0]] if dims and isinstance(dims[0], int) else shape


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


class _Ops(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees each ATen op after it ran and lets its rule write into the ledger."""

    def __init__(self, ledger: Ledger, functions: FunctionCalls) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ledger = ledger
        self.functions = functions

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.ledger.ops.append(str(func))
        tensors = tuple(flatten_tensors((args, kwargs)))
        names = (self.ledger.named(tensor) for tensor in tensors)
        self.ledger.ran.update(name for name in names if name is not None)
        frame = self.functions.frames[-1] if self.functions.frames else _Frame("", ())
        arguments, outputs = _arguments(func, args, kwargs), tuple(flatten_tensors(out))
        call = Call(func, arguments, tensors, outputs, frame.ints, frame.name)
        apply_rule(self.ledger, call)
        return out


def _arguments(
    func: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    schema = func._schema.arguments
    given = {argument.name: value for argument, value in zip(schema, args, strict=False)}
    rest = {a.name: kwargs.get(a.name, a.default_value) for a in schema if a.name not in given}
    return {**given, **rest}


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Within, every module is in eval mode and no gradient is recorded; then each has its own mode again."""
    with _own_modes(model), torch.no_grad():
        model.eval()
        yield


@contextmanager
def train_mode(model: nn.Module) -> Iterator[None]:
    """Within, all but the norms is in train mode (one image is too few for them); no gradient is recorded."""
    with _own_modes(model), torch.no_grad():
        model.train()
        for module in model.modules():
            if isinstance(module, _NormBase):
                module.eval()
        yield


@contextmanager
def _own_modes(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def repeatable() -> Iterator[None]:
    """Within, the same random numbers each time, no compiled code, no autocast; generators are untouched."""
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        for device in {"cpu", *(["cuda"] if torch.cuda.is_available() else [])}:
            stack.enter_context(torch.autocast(device, enabled=False))
        torch.manual_seed(0)
        yield


def _one_pass(model: nn.Module, inputs: Inputs, ledger: Ledger) -> Ledger:
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        ledger.mint(name, tensor)
    functions = FunctionCalls(ledger)
    with (
        eval_mode(model),
        repeatable(),
        tracked_sizes(model, ledger) as sizes,
        functions,
        _Ops(ledger, functions),
    ):
        output = model(*inputs.args, **inputs.kwargs)
    ledger.sizes = sizes
    _pin_ends(ledger, inputs, output)
    if any(name not in ledger.ran for name, _ in model.named_parameters()):
        _training_pass(model, inputs, ledger)
    return ledger


def _training_pass(model: nn.Module, inputs: Inputs, ledger: Ledger) -> None:
    """Notes what only training reads (auxiliary heads): its ties and pins count; its ops are not traced.

    Where the network does not run in train mode on `inputs`, what was read until then is pinned: what
    training makes of it is not known.
    """
    copies = {name: tensor.detach().clone() for name, tensor in tensors_of(model).items()}
    for name, tensor in tensors_of(model).items():
        ledger.adopt(copies[name], tensor)
    ops, work, sites, known = list(ledger.ops), list(ledger.work), dict(ledger.sites), set(ledger.ran)
    scaled = dict(ledger.scaled)
    functions = FunctionCalls(ledger)
    try:
        with (
            train_mode(model),
            repeatable(),
            tracked_sizes(model, ledger),
            functions,
            _Ops(ledger, functions),
        ):
            output = functional_call(model, copies, inputs.args, dict(inputs.kwargs))
        _pin_ends(ledger, inputs, output)
    except Exception:  # a forward that wants targets, say
        for name in ledger.ran - known:
            ledger.pin(ledger.labels(copies[name]), "training reads it, and could not be traced")
        ledger.training_known = False
    finally:
        ledger.ops, ledger.work, ledger.sites, ledger.scaled = ops, work, sites, scaled


def _pin_ends(ledger: Ledger, inputs: Inputs, output: object) -> None:
    reached = flatten_tensors(output)
    if not reached:
        raise PruningError(
            f"the network returned no tensor but {type(output).__name__}; "
            "it must return a tensor, or a tuple, list, dict or dataclass that holds tensors"
        )
    ledger.pin_numbers(reached, "the output")
    for tensor in (*reached, *inputs.tensors):
        ledger.pin(ledger.labels(tensor), "reaches the output")


def record(
    model: nn.Module,
    example_inputs: ExampleInputs | Inputs,
    *,
    dense: Mapping[str, tuple[int, ...]] | None = None,
    follows: frozenset[int] = frozenset(),
) -> Trace:
    """Runs `model` and gives what the rules said; `model` is untouched.

    It is run twice where it holds grouped convolutions.

    Args:
        model: any module that runs.
        example_inputs: what it is called with.
        dense: shapes that its tensors had before earlier cuts.
        follows: numbers of the calls of fused attention whose queries may lose width; see `hold_width`.

    Raises:
        PruningError: the network cannot be run on `example_inputs`, or returns no tensor.
    """
    inputs = Inputs.of(example_inputs)
    joint: dict[str, tuple[int, ...]] = {}
    while True:
        with untouched(model):
            ledger = _run(model, inputs, Ledger(joint=joint, follows=follows, dense=dense or {}))
        wanted = {name: dims for name, dims in ledger.wanted_joint.items() if name not in joint}
        if not wanted:
            break
        joint = {**joint, **wanted}
    root = components(ledger.count, ledger.ties)
    named = dict(itertools.chain(model.named_parameters(), model.named_buffers()))
    return Trace(
        shapes={name: tuple(tensor.shape) for name, tensor in named.items()},
        parameters=tuple(name for name, _ in model.named_parameters()),
        ran=frozenset(ledger.ran),
        training_known=ledger.training_known,
        count=ledger.count,
        mints=tuple(ledger.mints),
        roles=ledger.roles,
        ties=tuple(ledger.ties),
        pins=tuple(ledger.pins),
        blocks=(*ledger.blocks, *couplings(ledger.fits, ledger.sizes, root)),
        fits=tuple(ledger.fits),
        sizes=ledger.sizes,
        work=tuple(ledger.work),
        sites=ledger.sites,
        scaled=ledger.scaled,
        follows=follows,
        ops=tuple(ledger.ops),
    )


def _run(model: nn.Module, inputs: Inputs, ledger: Ledger) -> Ledger:
    try:
        return _one_pass(model, inputs, ledger)
    except PruningError:
        raise
    except Exception as error:
        raise PruningError(
            f"the network does not run on the example inputs of shapes {inputs.shapes}: "
            f"{type(error).__name__}: {error}; give example_inputs that its forward takes: "
            "a tensor, a tuple of arguments or a dict of keyword arguments"
        ) from error


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by the first name under which they stand."""
    return dict(itertools.chain(model.named_parameters(), model.named_buffers()))
