"""What one forward pass says about channels: ties, pins, blocks, sizes, costs.

The rules write into a `Ledger` while the network runs; afterwards it is read as plain data by the graph.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from seg_pruning.surgery.entries import Blocks, Branches, Buffer, Call, Fit, Mint, Role, Site, Work
from seg_pruning.surgery.expressions import Attribute, Expression, Extent
from seg_pruning.surgery.labels import (
    LabelArray,
    LabelSet,
    Shape,
    along,
    first_along,
    in_several_rows,
    lift,
    span,
    vector,
    without_fixed,
)
from seg_pruning.surgery.rows import Rows
from seg_pruning.surgery.scales import Scales
from seg_pruning.surgery.sizes import Size
from seg_pruning.surgery.standing import without_whole_blocks


@dataclass
class Ledger:
    """The book that the rules keep.

    Attributes:
        joint: dims of a tensor that must be labelled together, because a grouped convolution reads them so;
            found in one pass, used in the next.
        scales: of attention; found in one pass, used in the next.
        standing: numbers of ops at which no block leaves as a whole, although it could; likewise.
        dense: shapes that tensors had before earlier cuts: blocks that shrank to one channel stay blocks.
        dense_sizes: attributes that earlier cuts have changed, as they were before.
    """

    joint: dict[str, tuple[int, ...]] = field(default_factory=dict)
    scales: Scales = field(default_factory=Scales)
    standing: frozenset[int] = frozenset()
    dense: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dense_sizes: Mapping[Attribute, int] = field(default_factory=dict)
    wanted_joint: dict[str, tuple[int, ...]] = field(default_factory=dict)
    mints: list[Mint] = field(default_factory=list)
    roles: dict[int, Role] = field(default_factory=dict)
    ties: list[tuple[LabelArray, LabelArray]] = field(default_factory=list)
    pins: list[tuple[LabelArray, str]] = field(default_factory=list)
    blocks: list[Blocks] = field(default_factory=list)
    branches: list[Branches] = field(default_factory=list)
    fits: list[Fit] = field(default_factory=list)
    sizes: Mapping[Attribute, int] = field(default_factory=dict)
    work: list[Work] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    interleaved: set[bytes] = field(default_factory=set)
    sites: dict[int, Site] = field(default_factory=dict)
    ran: set[str] = field(default_factory=set)
    training_known: bool = True
    ops: list[str] = field(default_factory=list)
    count: int = 1
    _labels: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary)
    _names: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary)
    _numbers: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary)
    _starts: list[int] = field(default_factory=list)
    rows: Rows = field(default_factory=Rows)

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
        if tensor not in self._names:
            self.rows.lay_out(labels)

    def number(self, tensor: Tensor, labels: LabelArray) -> None:
        """Notes that `tensor` holds the numbers of channels, which a cut would change."""
        self._numbers[tensor] = (*self._numbers.get(tensor, ()), labels)  # type: ignore[no-untyped-call]

    def pin_numbers(self, tensors: Iterable[Tensor], what: str) -> None:
        """Pins the channels whose numbers are read."""
        for tensor in tensors:
            self.pin(self._numbers.get(tensor, ()), f"{what} reads the number of a channel")  # type: ignore[no-untyped-call]

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
            self.rows.share(*self.ties[-1])

    def tie_along(self, array: LabelArray, dims: Iterable[int]) -> LabelArray:
        """Ties what lies along `dims` of `array`; gives the array without them."""
        first = first_along(array, dims)
        self.tie(array, first)
        return first

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

    def equal_rows(self, rows: LabelArray, reason: str, *, stay: bool = True) -> None:
        """Each line along the last dim of `rows` keeps the same number of channels; see `Blocks`."""
        rows, stay = without_fixed(rows), stay or len(self.ops) - 1 in self.standing
        if rows.size > rows.shape[-1] > 0:
            self.blocks.append(Blocks(rows, reason, stay, len(self.ops) - 1))
            self.rows.add(rows.reshape(-1, rows.shape[-1]), stay=stay)

    def size(self, call: Call, value: int, *, at: slice = slice(None)) -> Expression | None:
        """How the int `value` that Python passed to this call came about; None for a plain number.

        Of the call's ints those `at` are looked at, so that another one of the same value is left alone.
        """
        found = [i for i in call.ints[at] if isinstance(i, Size) and i.owner is self and int(i) == value]
        return found[0].expression if found else None

    def fit(self, labels: LabelArray, sizes: Mapping[int, Expression | None], dim: int) -> None:
        """Notes what Python passed for the lengths of a tensor; `dim` is the one that gives way."""
        known = tuple((d, size) for d, size in sizes.items() if size is not None)
        if known:
            self.fits.append(Fit(labels, known, dim))

    def told_equal(self, axis: Extent, told: Expression) -> None:
        """Notes that Python found the length of `axis` equal to `told`."""
        self.fit(axis.labels, {axis.dim: told}, axis.dim)

    def told_float(self, value: int, told: Expression) -> None:
        """Notes that Python made a float of a size of `value`."""
        self.scales.floats.append((value, told))

    def narrowing(self, array: LabelArray) -> int | None:
        """The dim of `array` along which channels leave, line by line; None where that is open."""
        dims = span(array)
        if len(dims) == 1:
            return dims[0]
        rows = self.rows.of(without_fixed(array))
        if rows is not None:
            constant = [d for d in dims if (rows == rows.take([0], axis=d)).all()]
            return constant[0] if len(constant) == 1 else None
        mint = self.minted(int(array.flat[0]))
        joint = mint is not None and len(mint.dims) > 1 and mint.labels.size == array.size
        return dims[-1] if joint else None

    def stays(self, array: LabelArray) -> bool:
        """Whether none of the blocks in which the channels of `array` stand leaves as a whole."""
        return self.rows.stay(without_fixed(array))

    def narrow(self, array: LabelArray, prefer: Sequence[int], reason: str) -> int:
        """The dim along which `array` loses channels; the last of `prefer` is chosen where that is open."""
        if (found := self.narrowing(array)) is not None:
            return found
        chosen = max(d for d in prefer if d in span(array))
        if in_several_rows(array, chosen):
            self.tie_along(array, [d for d in span(array) if d != chosen])
            return chosen
        self.equal_rows(np.moveaxis(array, chosen, -1), reason, stay=False)
        return chosen

    def unmixed(self, labels: LabelSet, dims: Iterable[int], reason: str) -> LabelSet:
        """What is left of `labels` in an op that mixes the indices of `dims`, or slides over them.

        An array that spans nothing else is pinned; another one is tied along `dims`.
        """
        rigid, left = set(dims), []
        for array in labels:
            inside = rigid & set(span(array))
            if inside == set(span(array)) and inside:
                self.pin(array, reason)
            else:
                left.append(self.tie_along(array, inside) if inside else array)
        return self.distinct(left)

    def distinct(self, arrays: Iterable[LabelArray]) -> LabelSet:
        """The arrays, those that span the same dims tied and given once."""
        by_span: dict[tuple[int, ...], LabelArray] = {}
        for array in arrays:
            self.tie(by_span.setdefault(span(array), array), array)
        return tuple(by_span.values())

    def site(self, call: Call, outputs: tuple[LabelSet, ...], *, over: Iterable[LabelArray] = ()) -> None:
        """Notes that the op of `call` mixes labelled indices; those `over` which it takes a statistic."""
        inputs = tuple(self.labels(t) for t in call.tensors)
        self.sites[len(self.ops) - 1] = Site(inputs, outputs, tuple(over))

    def merge(self, operands: Sequence[tuple[LabelSet, Shape]], ndim: int, what: str) -> LabelSet:
        """The labels of tensors that are broadcast against each other in a space of `ndim` dims.

        Arrays that meet on the same dims are tied. A dim of size 1 broadcasts and ties nothing. Where a
        tensor does not label a dim that it has, nothing can leave along it.
        """
        wide = [(lift(labels, ndim), (1,) * (ndim - len(shape)) + tuple(shape)) for labels, shape in operands]
        lifted = without_whole_blocks(self, wide, what)
        result: list[LabelArray] = []
        for i, (labels, _) in enumerate(lifted):
            for array in labels:
                left: LabelArray | None = array
                for others, shape in (*lifted[:i], *lifted[i + 1 :]):
                    left = None if left is None else self._met(left, others, shape, what)
                result.extend(() if left is None else (left,))
        return self.distinct(result)

    def _met(self, array: LabelArray, others: LabelSet, shape: Shape, what: str) -> LabelArray | None:
        """What is left of `array` once it has met a tensor of `shape`; None where it is pinned."""
        dims = set(span(array))
        wide = {d for d in dims if shape[d] > 1}
        spans = [set(span(other)) for other in others]
        if not wide or any(dims < other for other in spans):
            return array  # that other array meets this one
        inside = [other for other, spanned in zip(others, spans, strict=True) if spanned <= dims]
        for other in inside:
            self.tie(array, other)
        if inside:  # alike along all other dims now
            return first_along(array, dims - set(span(inside[0])))
        reason = f"meets a tensor whose indices are fixed in {what}"
        if wide == dims:
            self.pin(array, reason)
            return None
        open_ = sorted(dims - wide)
        narrowing = self.narrow(array, open_, f"{what} meets blocks of equal width")
        if narrowing in open_:
            rest = [d for d in open_ if d != narrowing]
            order = [*(d for d in range(array.ndim) if d not in open_), *rest, narrowing]
            self.equal_rows(array.transpose(order), reason, stay=not rest)
            return array
        return self.tie_along(array, wide)
