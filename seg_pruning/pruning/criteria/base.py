"""What a criterion is: scores for the channels of one group, low ones leave first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from seg_pruning.pruning.criteria.members import Reduce, by_tensor, holds, once, reduced, wide
from seg_pruning.surgery.errors import PruningError

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGroup, Member

Members: TypeAlias = Literal["all", "out"]
Needs: TypeAlias = Literal["weights", "gradients", "pass"]
Reads: TypeAlias = Literal["weights", "outputs"]
Source: TypeAlias = Literal["loss", "random"]


@dataclass(frozen=True)
class OutputGradient:
    """What is propagated back from the output of the network.

    Attributes:
        source: "loss" for the gradient of the loss; "random" for a standard normal one, drawn for each
            sample, which needs neither labels nor a loss.
        normalise: Whether each sample's gradient is scaled to unit L2 norm over all its elements first.
        seed: Of the random gradient, which depends on it and on the number of the sample alone.
        per_sample: Whether each sample is propagated alone: an observation is then a sample, not a batch.
    """

    source: Source = "loss"
    normalise: bool = False
    seed: int = 0
    per_sample: bool = False


class Criterion(ABC):
    """Says how much each channel of a group matters.

    A subclass states its formula, its paper and its cost, sets `gradients`, and answers a call. The call is
    pure: the same arguments give the same scores, and nothing is changed.

    Args:
        members: Which parameter elements of a channel count: "all" that leave with it, the weights that read
            it included, or only those "out" of which it comes: filters, biases, norms. Buffers never count.
        reduce: What is made of the parts of one channel that several tensors (or, for criteria of outputs,
            layers) hold: their "sum", "mean" or "max" (the part of largest magnitude).
    """

    gradients: ClassVar[bool] = False
    """Whether gradients are needed; without them a call gets an empty mapping."""

    reads: Reads = "weights"
    """What is scored: parameters, by a call; or outputs of layers, see `OutputCriterion`."""

    output_gradient: OutputGradient = OutputGradient()
    """What a pass propagates; anything but the plain gradient of the loss makes a pass necessary."""

    def __init__(self, *, members: Members = "all", reduce: Reduce = "sum") -> None:
        check_choice(self, "members", members, get_args(Members))
        check_choice(self, "reduce", reduce, get_args(Reduce))
        self.members = members
        self.reduce: Reduce = reduce

    @property
    def needs(self) -> Needs:
        """Where scores come from.

        "weights": from the parameters alone. "gradients": also from the gradients of the loss, those of
        normal training steps as well as those of a pass. "pass": only from a pass over data of its own.
        """
        if self.reads == "outputs":
            return "pass"
        if not self.gradients:
            return "weights"
        return "gradients" if self.output_gradient == OutputGradient() else "pass"

    @property
    def needs_loss(self) -> bool:
        """Whether a pass propagates the gradient of a loss, and so needs one, and targets."""
        return self.gradients and self.output_gradient.source == "loss"

    @abstractmethod
    def __call__(
        self, group: ChannelGroup, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
    ) -> Tensor:
        """Scores of the channels of `group`, float32 of shape `(group.size,)`: low leaves first.

        Args:
            group: The channels and the tensors that hold them.
            weights: Parameters by name.
            gradients: Their gradients by name; one that is missing (a frozen parameter) stands for zero.
        """

    def unscored(self, group: ChannelGroup) -> str:
        """Why there is no score for `group`, whatever its weights; empty where there is one."""
        return ""

    def counted(self, group: ChannelGroup) -> list[Member]:
        """The members of `group` that count."""
        return [m for m in group.members if m.parameter and (self.members == "all" or m.side != "in")]

    def total(self, group: ChannelGroup, values: Callable[[str], Tensor | None]) -> Tensor:
        """What the elements of each channel come to: summed in each tensor, then reduced over tensors.

        Each element counts once, also where two tensors' dims meet in it.

        Args:
            group: The channels.
            values: Gives for a parameter's name a tensor of its shape, or `None` for zeros.

        Returns:
            float32 of shape `(group.size,)`; sums run in float32 at least.
        """
        parts, held = [], []
        for tensor, members in by_tensor(self.counted(group)).items():
            found = values(tensor)
            if found is not None:
                sums = [member.sum(value, group.size) for member, value in once(members, wide(found))]
                parts.append(torch.stack(sums).sum(0))
            held.append(torch.stack([holds(member, group.size) for member in members]).any(0))
        if not parts:
            return torch.zeros(group.size)
        return reduced(parts, held, reduce=self.reduce).float()


def listed(names: Sequence[str]) -> str:
    """Up to ten names for a message.

    Example:
        >>> listed(["stem", "head"])
        "'stem', 'head'"
    """
    return ", ".join(map(repr, names[:10])) + (" and others" if len(names) > 10 else "")


def check_scored(criterion: Criterion, groups: Iterable[ChannelGroup]) -> None:
    """Raises where a criterion has no score for some of `groups`.

    Raises:
        PruningError: The groups, the reason, and what to do.
    """
    reasons = {group.name: criterion.unscored(group) for group in groups}
    bare = [name for name, reason in reasons.items() if reason]
    if bare:
        raise PruningError(
            f"{type(criterion).__name__} has no score for {listed(bare)}: {reasons[bare[0]]}; protect them, "
            "or choose another criterion, such as 'l2'"
        )


def check_choice(criterion: Criterion, argument: str, value: object, legal: tuple[object, ...]) -> None:
    """Raises where an argument of a criterion is none of the legal ones."""
    if value not in legal:
        raise PruningError(
            f"expected {argument} of {type(criterion).__name__} to be one of {legal}, but got {value!r}"
        )


def check_reads_weights(criterion: Criterion) -> None:
    """Raises where weights are not what a criterion scores."""
    if criterion.reads != "weights":
        raise PruningError(
            f"{type(criterion).__name__} scores what layers put out, which needs a pass over data: "
            "call `score` with `data`"
        )
