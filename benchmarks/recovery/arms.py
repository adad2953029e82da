"""The arms: how a network comes to its size, and how it recovers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from seg_pruning import criteria
from seg_pruning.pruning.criteria import Criterion
from seg_pruning.pruning.options import Selection

EPOCHS = 10
RATE = 2e-3

After = Literal["nothing", "recalibrated", "compensated"]
Budget = tuple[Literal["params", "macs"], float]
BUDGETS: tuple[Budget, ...] = (
    ("params", 0.3),
    ("params", 0.1),
    ("params", 0.05),
    ("macs", 0.3),
    ("macs", 0.1),
)


@dataclass(frozen=True)
class Ours:
    """Cut by this package.

    Attributes:
        criterion: what scores the channels.
        selection: how they are chosen.
        events: cuts over which the budget is reached: one before training, or one at the start of each of as
            many epochs from the second on, by the callback.
        steps: optimizer steps from one such cut to the next, in place of epochs.
    """

    criterion: Criterion
    selection: Selection = field(default_factory=Selection)
    events: int = 1
    steps: int | None = None


@dataclass(frozen=True)
class Theirs:
    """Cut by Torch-Pruning, ranked over the whole network.

    Attributes:
        importance: its `GroupMagnitudeImportance` or `GroupTaylorImportance`.
        spare: whether the convolution that feeds the head is left whole, which its user has to know of.
    """

    importance: Literal["l2", "taylor"]
    spare: bool = False


@dataclass(frozen=True)
class Arm:
    """How a network comes to its size, and how it recovers.

    Attributes:
        cut: what removes channels; None leaves the dense network.
        epochs: of training after the first cut, or in all from scratch.
        rate: the learning rate at first; it falls to 0 by a cosine.
        scratch: whether weights are drawn anew at those widths.
        distil: whether the dense network teaches.
        after: what makes up for the cut before training: nothing, new statistics of BatchNorm, or both that
            and the compensation of this package.
    """

    cut: Ours | Theirs | None
    epochs: int = EPOCHS
    rate: float = RATE
    scratch: bool = False
    distil: bool = False
    after: After = "nothing"

    @property
    def one_shot(self) -> bool:
        """Whether all is cut at once, before training."""
        return isinstance(self.cut, Theirs) or (isinstance(self.cut, Ours) and self.cut.events == 1)


UNIFORM = Selection(scope="local")
TAYLOR = criteria.Taylor()
RANDOM_GRADIENT = criteria.Taylor(of="activation", form="abs", gradient="random", normalise=True)

CONTROLS: Mapping[str, Arm] = {
    "dense, as much longer": Arm(None, rate=3e-4),
    "random": Arm(Ours(criteria.Random(), UNIFORM)),
    "uniform, by l2": Arm(Ours(criteria.L2(), UNIFORM)),
}
CRITERIA: Mapping[str, Arm] = {
    "l1": Arm(Ours(criteria.L1())),
    "l2": Arm(Ours(criteria.L2())),
    "bn_scale": Arm(Ours(criteria.BNScale())),
    "fpgm": Arm(Ours(criteria.FPGM())),
    "lamp": Arm(Ours(criteria.LAMP(), Selection(normalise="none"))),
    "taylor": Arm(Ours(TAYLOR)),
    "taylor, absolute": Arm(Ours(criteria.Taylor(form="abs"))),
    "taylor of activations, signed": Arm(Ours(criteria.Taylor(of="activation", form="signed"))),
    "taylor of activations, absolute": Arm(Ours(criteria.Taylor(of="activation", form="abs"))),
    "taylor of activations, squared": Arm(Ours(criteria.Taylor(of="activation", form="squared"))),
    "taylor of activations, normalised": Arm(
        Ours(criteria.Taylor(of="activation", form="abs", normalise=True))
    ),
    "taylor of activations, random gradient": Arm(Ours(RANDOM_GRADIENT)),
    "hessian": Arm(Ours(criteria.Hessian())),
    "activation": Arm(Ours(criteria.Activation())),
    "apoz": Arm(Ours(criteria.Activation(statistic="apoz"))),
}
PEERS: Mapping[str, Arm] = {
    "Torch-Pruning, l2": Arm(Theirs("l2")),
    "Torch-Pruning, taylor": Arm(Theirs("taylor")),
    "Torch-Pruning, taylor, head's food spared": Arm(Theirs("taylor", spare=True)),
}
SCRATCH: Mapping[str, Arm] = {
    "taylor's widths from scratch": Arm(Ours(TAYLOR), epochs=50, rate=1e-3, scratch=True),
    "random's widths from scratch": Arm(Ours(criteria.Random(), UNIFORM), epochs=50, rate=1e-3, scratch=True),
}
RECIPES: Mapping[str, Arm] = {
    "taylor, distilled": Arm(Ours(TAYLOR), distil=True),
    "taylor, compensated": Arm(Ours(TAYLOR), after="compensated"),
    "taylor, compensated, rate 5e-4": Arm(Ours(TAYLOR), rate=5e-4, after="compensated"),
    "taylor, compensated, distilled, rate 1e-3": Arm(
        Ours(TAYLOR), rate=1e-3, distil=True, after="compensated"
    ),
    "taylor in 5 cuts": Arm(Ours(TAYLOR, events=5)),
    "taylor in 5 cuts, distilled, rate 1e-3": Arm(Ours(TAYLOR, events=5), rate=1e-3, distil=True),
    "taylor in 5 compensated cuts, distilled, rate 1e-3": Arm(
        Ours(TAYLOR, events=5), rate=1e-3, distil=True, after="compensated"
    ),
    "taylor in 5 early compensated cuts, distilled, rate 1e-3": Arm(
        Ours(TAYLOR, events=5, steps=20), rate=1e-3, distil=True, after="compensated"
    ),
    "taylor in 5 early compensated cuts, distilled": Arm(
        Ours(TAYLOR, events=5, steps=20), distil=True, after="compensated"
    ),
    "taylor in 10 early compensated cuts, distilled, rate 1e-3": Arm(
        Ours(TAYLOR, events=10, steps=15), rate=1e-3, distil=True, after="compensated"
    ),
    "taylor, rate 3e-4": Arm(Ours(TAYLOR), rate=3e-4),
    "taylor, rate 1e-3": Arm(Ours(TAYLOR), rate=1e-3),
    "taylor in 5 cuts, rate 3e-4": Arm(Ours(TAYLOR, events=5), rate=3e-4),
}
UNTRAINED: Mapping[str, Arm] = {
    f"{name}, {after}, not trained": Arm(Ours(criterion), epochs=0, after=after)
    for name, criterion in (("random", criteria.Random()), ("l2", criteria.L2()), ("taylor", TAYLOR))
    for after in get_args(After)
}
ARMS: Mapping[str, Arm] = {**CONTROLS, **CRITERIA, **PEERS, **SCRATCH, **RECIPES, **UNTRAINED}
