"""What the ledger holds: one kind of entry for each thing that a rule can say about channels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from seg_pruning.surgery.expressions import Attribute, Expression
from seg_pruning.surgery.labels import LabelArray, LabelSet

NO_DIM = -1
NO_OP = -1

Role: TypeAlias = Literal["out", "in", "vector", "spatial"]


@dataclass(frozen=True, slots=True)
class Mint:
    """Fresh labels of one parameter or buffer: `labels` spans `dims` of the tensor named `tensor`."""

    tensor: str
    dims: tuple[int, ...]
    labels: LabelArray


@dataclass(frozen=True, slots=True)
class Blocks:
    """Lines of labels along the last dim of `rows`; all must keep the same number of channels.

    Attributes:
        rows: the lines.
        reason: in words.
        stay: whether each must keep some; else a line may also leave as a whole.
        op: number of the op that says so; `NO_OP` where several sizes do.
    """

    rows: LabelArray
    reason: str
    stay: bool = True
    op: int = NO_OP


@dataclass(frozen=True, slots=True)
class Branches:
    """Blocks that may also leave as a whole: Python says how many there are, and the rest follows.

    The groups of a convolution: what each reads and what it makes leave with it.

    Attributes:
        lines: label arrays of shape `(branches, channels)`; line i of one leaves with line i of each other.
        blocks: numbers of the block constraints that hold because of them.
        size: the attribute that holds their number.
    """

    lines: tuple[LabelArray, ...]
    blocks: tuple[int, ...]
    size: Attribute


@dataclass(frozen=True, slots=True)
class Fit:
    """What Python passed for the lengths of a tensor that `labels` span.

    Attributes:
        labels: the label array.
        sizes: for some of its dims, the expression that has to give the kept length.
        dim: the dim along which channels are expected to leave; `NO_DIM` where that is open.
    """

    labels: LabelArray
    sizes: tuple[tuple[int, Expression], ...]
    dim: int


@dataclass(frozen=True, slots=True)
class Work:
    """Multiply-accumulates of one op of the dense network; they fall with the kept share of each array."""

    macs: int
    labels: LabelSet


@dataclass(slots=True)
class Buffer:
    """A storage that an op made; its bytes fall with the kept share of each array.

    Attributes:
        bytes: of the dense network.
        labels: of the tensor that it was made for.
        born: number of the op that made it.
        died: number of the first op before which it had been released; None where it outlived the pass.
    """

    bytes: int
    labels: LabelSet
    born: int
    died: int | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """An op that mixes labelled indices: with channels masked it has to be taken over the kept ones only.

    Attributes:
        inputs: the label arrays of each tensor that it reads.
        outputs: of each that it makes.
        over: of the population of a statistic (a norm, mean, extreme or softmax), which a cut changes.
    """

    inputs: tuple[LabelSet, ...]
    outputs: tuple[LabelSet, ...]
    over: LabelSet = ()


@dataclass(frozen=True)
class Call:
    """One op as it ran: arguments by their names in the schema, outputs.

    Attributes:
        caller: name of the torch function by which Python called it.
        ints: the ints that Python passed to that function, in order.
    """

    func: torch._ops.OpOverload
    arguments: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    ints: Sequence[int]
    caller: str = ""

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def name(self) -> str:
        """The op's name for messages, such as `aten.convolution`."""
        return str(self.func.overloadpacket)
