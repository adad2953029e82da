"""What one forward pass says about channels: ties, pins, blocks, sizes, costs.

The rules write into a `Ledger` while the network runs; afterwards it is read as plain data by the graph.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from seg_pruning.surgery.labels import FIXED, LabelArray, LabelSet, Shape, along, lift, span, vector
from seg_pruning.surgery.sizes import Attribute, Size

Role: TypeAlias = Literal["out", "in", "vector", "spatial"]


@dataclass(frozen=True, slots=True)
class Mint:
    """Fresh labels of one parameter or buffer: `labels` spans `dims` of the tensor named `tensor`."""

    tensor: str
    dims: tuple[int, ...]
    labels: LabelArray


@dataclass(frozen=True, slots=True)
class Blocks:
    """Rows of labels, shape `(rows, columns)`, that must all keep the same number of channels."""

    rows: LabelArray
    reason: str


@dataclass(frozen=True, slots=True)
class Demand:
    """`attribute` has to equal the number of `labels` that are kept."""

    attribute: Attribute
    labels: LabelArray


@dataclass(frozen=True, slots=True)
class Work:
    """Multiply-accumulates of one op of the dense network; they fall with the kept share of each array."""

    macs: int
    labels: LabelSet


@dataclass(frozen=True, slots=True)
class Site:
    """An op that mixes labelled indices: with channels masked it has to be taken over the kept ones only."""

    inputs: tuple[LabelSet, ...]
    outputs: tuple[LabelSet, ...]


@dataclass(frozen=True)
class Call:
    """One op as it ran: arguments by their names in the schema, outputs, the ints that Python passed."""

    func: torch._ops.OpOverload
    arguments: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    ints: Sequence[int]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def name(self) -> str:
        """The op's name for messages, such as `aten.convolution`."""
        return str(self.func.overloadpacket)


@dataclass
class Ledger:
    """The book that the rules keep.

    Attributes:
        joint: dims of a tensor that must be labelled together, because a grouped convolution reads them so;
            found in one pass, used in the next.
        dense: shapes that tensors had before earlier cuts: blocks that shrank to one channel stay blocks.
    """

    joint: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dense: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    wanted_joint: dict[str, tuple[int, ...]] = field(default_factory=dict)
    mints: list[Mint] = field(default_factory=list)
    roles: dict[int, Role] = field(default_factory=dict)
    ties: list[tuple[LabelArray, LabelArray]] = field(default_factory=list)
    pins: list[tuple[LabelArray, str]] = field(default_factory=list)
    blocks: list[Blocks] = field(default_factory=list)
    demands: list[Demand] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)
    sites: dict[int, Site] = field(default_factory=dict)
    ran: set[str] = field(default_factory=set)
    training_known: bool = True
    ops: list[str] = field(default_factory=list)
    count: int = 1
    _labels: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary)
    _names: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary)
    _starts: list[int] = field(default_factory=list)

    # -- labels of tensors --------------------------------------------------------------------------------

    def labels(self, tensor: Tensor) -> LabelSet:
        """The label arrays of `tensor`; none for a tensor that is rigid throughout."""
        found: LabelSet = self._labels.get(tensor, ())  # type: ignore[no-untyped-call]
        return found

    def vector(self, tensor: Tensor, dim: int) -> LabelArray | None:
        """The labels along one dim of `tensor`, if that dim is labelled by itself."""
        return vector(self.labels(tensor), dim % max(tensor.ndim, 1))

    def set(self, tensor: Tensor, labels: LabelSet) -> None:
        """Gives `tensor` its label arrays."""
        self._labels[tensor] = labels

    def fresh(self, size: int) -> LabelArray:
        """New labels, shape `(size,)`."""
        start, self.count = self.count, self.count + size
        return np.arange(start, self.count, dtype=np.int64)

    def mint(self, name: str, tensor: Tensor) -> None:
        """Labels every dim of a parameter or buffer that is larger than 1."""
        self._names[tensor] = name
        joint = self.joint.get(name, ())
        arrays = []
        for d in range(tensor.ndim):
            dims = joint if joint and d == joint[-1] else (d,)
            sizes = [tensor.shape[i] if i in dims else 1 for i in range(tensor.ndim)]
            if tensor.shape[d] > 1:
                self._starts.append(self.count)
                array = self.fresh(int(np.prod(sizes))).reshape(sizes)
                self.mints.append(Mint(name, span(array), array))
                arrays.append(array)
        self.set(tensor, tuple(arrays))

    def adopt(self, copy: Tensor, original: Tensor) -> None:
        """Makes `copy` stand for a parameter or buffer that has been minted."""
        self._names[copy] = self._names[original]
        self.set(copy, self.labels(original))

    def free(self, shape: Shape) -> LabelSet:
        """Fresh labels along every dim of a tensor whose elements are all alike (zeros, an expanded gate)."""
        return tuple(along(self.fresh(size), d, len(shape)) for d, size in enumerate(shape) if size > 1)

    def minted(self, label: int) -> Mint | None:
        """Where `label` was minted; None for a label of an activation."""
        at = int(np.searchsorted(self._starts, label, side="right")) - 1
        if at < 0 or label >= self._starts[at] + self.mints[at].labels.size:
            return None
        return self.mints[at]

    def role(self, labels: LabelArray | None, role: Role) -> None:
        """Notes what an op used the minted `labels` for; the first use counts."""
        if labels is not None and (mint := self.minted(int(labels.flat[0]))) is not None:
            self.roles.setdefault(int(mint.labels.flat[0]), role)

    def named(self, tensor: Tensor) -> str | None:
        """The name of a parameter or buffer; None for an activation."""
        name: str | None = self._names.get(tensor)  # type: ignore[no-untyped-call]
        return name

    def dense_shape(self, tensor: Tensor) -> tuple[int, ...]:
        """The shape of a parameter or buffer before any cut; the present one of an activation."""
        return self.dense.get(self.named(tensor) or "", tuple(tensor.shape))

    # -- what rules say -----------------------------------------------------------------------------------

    def tie(self, a: LabelArray, b: LabelArray) -> None:
        """The channels of `a` and `b`, arrays that broadcast to one shape, leave together."""
        if a is not b:
            x, y = np.broadcast_arrays(a, b)
            self.ties.append((x.reshape(-1), y.reshape(-1)))

    def pin(self, labels: LabelSet | LabelArray | None, reason: str) -> None:
        """The channels of `labels` never leave."""
        arrays = labels if isinstance(labels, tuple) else () if labels is None else (labels,)
        self.pins.extend((array.reshape(-1), reason) for array in arrays)

    def meet(self, a: LabelArray | None, b: LabelArray | None, reason: str) -> None:
        """Ties two vectors; where one of them is rigid the other is pinned."""
        if a is not None and b is not None:
            self.tie(a, b)
        else:
            self.pin(a if a is not None else b, reason)

    def equal_rows(self, rows: LabelArray, reason: str) -> None:
        """Each row of `rows` keeps the same number of channels."""
        if rows.shape[0] > 1:
            self.blocks.append(Blocks(rows, reason))

    def demand(self, call: Call, value: int, labels: LabelArray, *, at: slice = slice(None)) -> bool:
        """Notes the attribute through which Python passed `value` to this call; False if there is none.

        Args:
            call: the op.
            value: number of `labels`.
            labels: what is to be counted after a cut.
            at: where in the call's ints the size stands, so that another one of the same value is left alone.
        """
        attributes = {s.attribute for s in call.ints[at] if isinstance(s, Size) and int(s) == value}
        self.demands.extend(Demand(attribute, labels) for attribute in sorted(attributes))
        return bool(attributes)

    def site(self, call: Call, outputs: tuple[LabelSet, ...]) -> None:
        """Notes that the op of `call` mixes labelled indices."""
        inputs = tuple(self.labels(t) for t in call.tensors)
        self.sites[len(self.ops) - 1] = Site(inputs, outputs)

    # -- the algebra that most rules share ----------------------------------------------------------------

    def merge(self, operands: Sequence[tuple[LabelSet, Shape]], ndim: int, what: str) -> LabelSet:
        """The labels of tensors that are broadcast against each other in a space of `ndim` dims.

        Arrays that meet on the same dims are tied. A dim of size 1 broadcasts and ties nothing. An array
        that meets a tensor which does not label those dims in the same way is pinned.
        """
        lifted = [
            (lift(labels, ndim), (1,) * (ndim - len(shape)) + tuple(shape)) for labels, shape in operands
        ]
        result: dict[tuple[int, ...], LabelArray] = {}
        for i, (labels, _) in enumerate(lifted):
            for array in labels:
                for j, (others, shape) in enumerate(lifted):
                    if i != j:
                        self._meet_shape(array, others, shape, what)
                self.tie(result.setdefault(span(array), array), array)
        return tuple(result.values())

    def _meet_shape(self, array: LabelArray, others: LabelSet, shape: Shape, what: str) -> None:
        dims = span(array)
        wide = [shape[d] > 1 for d in dims]
        if not any(wide):
            return
        partner = next((other for other in others if span(other) == dims), None)
        if all(wide) and partner is not None:
            self.tie(array, partner)
        else:
            self.pin(array, f"meets a tensor whose indices are fixed in {what}")


def with_fixed(labels: LabelSet, dims: tuple[int, ...], shape: Shape) -> LabelArray:
    """The array of `labels` that spans `dims`, widened to all of `dims`; `FIXED` where there is none."""
    wide = [size if d in dims else 1 for d, size in enumerate(shape)]
    inside = [array for array in labels if span(array) and set(span(array)) <= set(dims)]
    if len(inside) != 1:
        return np.full(wide, FIXED, dtype=np.int64)
    return np.broadcast_to(inside[0], wide)
