"""One forward pass, read op by op: which channels are tied, which are pinned, which sizes follow."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from torch import nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from seg_pruning.surgery.calls import FunctionCalls, Ops
from seg_pruning.surgery.coupling import couplings
from seg_pruning.surgery.entries import Blocks, Branches, Buffer, Fit, Mint, Role, Site, Work
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.expressions import Attribute
from seg_pruning.surgery.inputs import ExampleInputs, Inputs, flatten_tensors
from seg_pruning.surgery.labels import LabelArray, components
from seg_pruning.surgery.ledger import Ledger
from seg_pruning.surgery.passes import eval_mode, repeatable, tensors_of, train_mode
from seg_pruning.surgery.scales import Scales
from seg_pruning.surgery.sizes import tracked_sizes
from seg_pruning.surgery.storages import Storages
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
        fits: what Python passed for the lengths of labelled tensors.
        sizes: the present value of each attribute from which a size was read.
        buffers: the storages that ops made, in order.
        sites: the ops that mix labelled indices, by their number in `ops`.
        scales: of attention.
        ops: names of all ops, in order: a second pass must run the same.
        branches: blocks that may leave as a whole.
        laid_out: what activations showed along several dims at once.
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
    buffers: tuple[Buffer, ...]
    sites: Mapping[int, Site]
    scales: Scales
    ops: tuple[str, ...]
    branches: tuple[Branches, ...] = ()
    laid_out: tuple[LabelArray, ...] = ()

    @cached_property
    def parameter_set(self) -> frozenset[str]:
        """The names of `parameters`, for look-up."""
        return frozenset(self.parameters)


def _one_pass(model: nn.Module, inputs: Inputs, ledger: Ledger) -> Ledger:
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        ledger.mint(name, tensor)
    storages = Storages()
    with eval_mode(model), _watched(model, ledger, storages=storages) as sizes:
        output = model(*inputs.args, **inputs.kwargs)
    storages.release(len(ledger.ops))
    ledger.sizes, ledger.buffers = sizes, storages.buffers
    _pin_ends(ledger, inputs, output)
    if any(name not in ledger.ran for name, _ in model.named_parameters()):
        _training_pass(model, inputs, ledger)
    return ledger


@contextmanager
def _watched(
    model: nn.Module, ledger: Ledger, *, storages: Storages | None = None
) -> Iterator[Mapping[Attribute, int]]:
    """Within, what `model` does is written into `ledger`; gives the attributes from which sizes are read."""
    functions = FunctionCalls(ledger)
    ops = Ops(ledger, functions, storages=storages)
    with repeatable(), tracked_sizes(model, ledger) as sizes, functions, ops:
        yield sizes


def _training_pass(model: nn.Module, inputs: Inputs, ledger: Ledger) -> None:
    """Notes what only training reads (auxiliary heads): its ties and pins count; its ops are not traced.

    Where the network does not run in train mode on `inputs`, what was read until then is pinned: what
    training makes of it is not known.
    """
    copies = {name: tensor.detach().clone() for name, tensor in tensors_of(model).items()}
    for name, tensor in tensors_of(model).items():
        ledger.adopt(copies[name], tensor)
    ops, work, sites, known = list(ledger.ops), list(ledger.work), dict(ledger.sites), set(ledger.ran)
    scales, ledger.scales = ledger.scales, Scales(ledger.scales.follows)  # numbered anew
    try:
        with train_mode(model), _watched(model, ledger):
            output = functional_call(model, copies, inputs.args, dict(inputs.kwargs))
        _pin_ends(ledger, inputs, output)
    except Exception:  # a forward that wants targets, say
        for name in ledger.ran - known:
            ledger.pin(ledger.labels(copies[name]), "training reads it, and could not be traced")
        ledger.training_known = False
    finally:
        ledger.ops, ledger.work, ledger.sites, ledger.scales = ops, work, sites, scales


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
    dense_sizes: Mapping[Attribute, int] | None = None,
    follows: frozenset[int] = frozenset(),
    standing: frozenset[int] = frozenset(),
) -> Trace:
    """Runs `model` and gives what the rules said; `model` is untouched.

    It is run again where a grouped convolution is met that no layer of torch.nn announced.

    Args:
        model: any module that runs.
        example_inputs: what it is called with.
        dense: shapes that its tensors had before earlier cuts.
        dense_sizes: attributes that these have changed, as they were before.
        follows: numbers of the attentions whose queries may lose width; see `Scales`.
        standing: numbers of the ops at which no block may leave as a whole.

    Raises:
        PruningError: the network cannot be run on `example_inputs`, or returns no tensor.
    """

    def empty(joint: dict[str, tuple[int, ...]]) -> Ledger:
        scales, sizes = Scales(follows), dense_sizes or {}
        return Ledger(joint=joint, scales=scales, standing=standing, dense=dense or {}, dense_sizes=sizes)

    ledger = _filled(model, Inputs.of(example_inputs), empty)
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
        buffers=tuple(ledger.buffers),
        sites=ledger.sites,
        scales=ledger.scales,
        ops=tuple(ledger.ops),
        branches=tuple(ledger.branches),
        laid_out=tuple(ledger.rows.laid_out),
    )


def _filled(
    model: nn.Module, inputs: Inputs, empty: Callable[[dict[str, tuple[int, ...]]], Ledger]
) -> Ledger:
    """What the rules said once all grouped weights were known."""
    joint = _grouped_weights(model)
    while True:
        with untouched(model):
            ledger = _run(model, inputs, empty(joint))
        wanted = {name: dims for name, dims in ledger.wanted_joint.items() if name not in joint}
        if not wanted:
            return ledger
        joint = {**joint, **wanted}


def _grouped_weights(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The dims of weights that grouped convolutions read jointly, as far as layers tell."""
    return {
        f"{path}.weight" if path else "weight": (0, 1)
        for path, layer in model.named_modules()
        if isinstance(layer, _ConvNd)
        and not isinstance(layer, _ConvTransposeNd)
        and layer.groups > 1
        and layer.weight.shape[1] > 1
    }


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
