"""The convolutions and linear layers of a pass, as calls that can be made again at any width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from seg_pruning.surgery.inputs import Inputs

aten = torch.ops.aten
_LINEAR = {aten.mm.default: (0, 1), aten.addmm.default: (1, 2)}  # where the input and the weight stand


@dataclass(frozen=True)
class Layer:
    """What fixes the time of a layer beside the two lengths of its weight.

    Attributes:
        kind: what it does.
        rest: the input's shape without its channels.
        kernel: extent of the kernel.
        stride, padding, dilation, output_padding, transposed, bias: as torch has them.
        groups: of the convolution; 0 where each channel is one (depthwise).
        each: filters for each channel of a depthwise convolution.
        channels_last: how input and weight lie in memory.
    """

    kind: Literal["convolution", "linear"]
    rest: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    transposed: bool = False
    bias: bool = False
    groups: int = 1
    each: int = 1
    channels_last: tuple[bool, bool] = (False, False)

    @property
    def blocks(self) -> int:
        """What the first length of the weight is a multiple of."""
        return self.groups or self.each

    @property
    def key(self) -> str:
        """The layer in one line."""
        return " ".join(f"{name}={value}" for name, value in asdict(self).items())


@dataclass(frozen=True)
class LayerCall:
    """A layer whose weight is `first` by `second` long, on random values that are drawn once."""

    layer: Layer
    first: int
    second: int
    device: torch.device
    dtype: torch.dtype

    def __call__(self) -> Tensor:
        """Runs the layer once."""
        return self._run()

    @cached_property
    def _run(self) -> Callable[[], Tensor]:
        return self._convolution() if self.layer.kind == "convolution" else self._linear()

    def _linear(self) -> Callable[[], Tensor]:
        x = self._random((*self.layer.rest, self.second))
        weight, bias = self._random((self.first, self.second)).t(), self._random((self.first,))
        if self.layer.bias:
            return lambda: aten.addmm(bias, x, weight)
        return lambda: aten.mm(x, weight)

    def _convolution(self) -> Callable[[], Tensor]:
        layer = self.layer
        groups = layer.groups or max(1, self.first // layer.each)
        first = groups * layer.each if not layer.groups else max(1, self.first // groups) * groups
        read = first if layer.transposed else self.second * groups
        made = self.second * groups if layer.transposed else first
        batch, *space = layer.rest
        x = self._random((batch, read, *space), last=layer.channels_last[0])
        weight = self._random((first, self.second, *layer.kernel), last=layer.channels_last[1])
        bias = self._random((made,)) if layer.bias else None
        options = (layer.stride, layer.padding, layer.dilation, layer.transposed, layer.output_padding)
        return lambda: aten.convolution(x, weight, bias, *options, groups)

    def _random(self, shape: tuple[int, ...], *, last: bool = False) -> Tensor:
        tensor = torch.randn(shape, device=self.device).to(self.dtype)
        return tensor.contiguous(memory_format=torch.channels_last) if last else tensor


@dataclass(frozen=True)
class Placed:
    """A layer and the parameter that is its weight."""

    weight: str
    layer: Layer


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each convolution and matrix product with a parameter."""

    def __init__(self, names: dict[int, tuple[str, tuple[int, ...]]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names = names
        self.found: list[Placed] = []

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is aten.convolution.default:
            self._convolution(*args)
        elif func in _LINEAR:
            x, weight = (args[i] for i in _LINEAR[func])
            self._linear(x, weight, func is aten.addmm.default)
        return func(*args, **(kwargs or {}))

    def _name(self, weight: Tensor, shape: tuple[int, ...]) -> str | None:
        name, held = self.names.get(weight.untyped_storage()._cdata, (None, ()))
        return name if held == shape else None

    def _linear(self, x: Tensor, weight: Tensor, bias: bool) -> None:
        name = self._name(weight, tuple(weight.t().shape))
        if name is not None:
            self.found.append(Placed(name, Layer("linear", (x.shape[0],), bias=bias)))

    def _convolution(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        transposed: bool,
        output_padding: list[int],
        groups: int,
    ) -> None:
        name = self._name(weight, tuple(weight.shape))
        if name is None:
            return
        depthwise = groups > 1 and weight.shape[1] == 1 and groups == x.shape[1]
        layer = Layer(
            "convolution",
            (x.shape[0], *x.shape[2:]),
            kernel=tuple(weight.shape[2:]),
            stride=tuple(stride),
            padding=tuple(padding),
            dilation=tuple(dilation),
            output_padding=tuple(output_padding),
            transposed=transposed,
            bias=bias is not None,
            groups=0 if depthwise else groups,
            each=weight.shape[0] // groups if depthwise else 1,
            channels_last=(_lies_last(x), _lies_last(weight)),
        )
        self.found.append(Placed(name, layer))


def _lies_last(tensor: Tensor) -> bool:
    last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return last and not tensor.is_contiguous()


def layers_of(model: nn.Module, inputs: Inputs) -> tuple[Placed, ...]:
    """The convolutions and linear layers of one pass of `model`, in the order in which they run.

    Layers whose weight is computed (weight standardisation), and products of activations, are not among them.
    """
    names = {p.untyped_storage()._cdata: (n, tuple(p.shape)) for n, p in model.named_parameters()}
    watch = _Watch(names)
    with watch:
        inputs.call(model)
    return tuple(watch.found)
