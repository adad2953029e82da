"""What is known of the network that a training prunes: its channels, its costs, and what it may cost."""

from __future__ import annotations

import lightning as L
from torch import Tensor, nn

from seg_pruning.callbacks import checks, penalty, ranks, thawing
from seg_pruning.callbacks.event import costs, show
from seg_pruning.callbacks.example import REMEDY, Example
from seg_pruning.callbacks.part import OfPart
from seg_pruning.callbacks.scoring import TrainingScores
from seg_pruning.profiling.latency_model import LatencyModel, latency_of
from seg_pruning.pruning.budgets import Amounts, Budget, amounts
from seg_pruning.pruning.protection import protected
from seg_pruning.pruning.selection import Selection, check_reachable
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.graph import ChannelGraph
from seg_pruning.surgery.trial import trace


class Surveying(OfPart):
    """The network of one training, looked at before its first cut and after each.

    Attributes:
        dense: amounts of the dense network; None where it has not been looked at.
        widths: its groups' widths.
    """

    budget: Budget
    scores: TrainingScores
    selection: Selection
    example: Example

    dense: Amounts | None
    widths: dict[str, int]
    _graph: ChannelGraph | None
    _whole: frozenset[str]
    _latency: LatencyModel | None
    _scales: dict[nn.Parameter, Tensor]
    _doubt: PruningError | None

    def forget_network(self) -> None:
        """Makes it as new."""
        self.dense = None
        self.widths = {}
        self._graph = self._latency = None
        self._scales = {}
        self._doubt = None
        self.example.forget()

    def meet(self, trainer: L.Trainer, module: L.LightningModule, batch: object) -> None:
        """Calls the network with an image, where that is what it takes, or else waits until it is called."""
        self._doubt = None
        if self.network is module:
            try:
                self.example.see(batch)
                with ranks.together(trainer):
                    graph = trace(module, self.example.on(module, module))
            except PruningError as error:
                self._doubt = error
            else:
                with ranks.together(trainer):
                    self.read(module, graph)
                self.check_budget(trainer, module)
                return
        self.example.listen(trainer, self.network)

    def hear(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Traces the network from the call that was waited for, before any step of an optimizer."""
        if not self.example.heard and self._doubt is not None:
            raise PruningError(f"{self._doubt}. If it is not called with one image, {REMEDY}")
        self.example.hear()
        self.prepare(trainer, module)

    def prepare(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Looks at the network, whose inputs are known, before any step of an optimizer."""
        with ranks.together(trainer):
            self.look(module)
        self.check_budget(trainer, module)

    def check_budget(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Makes sure that the budget can be reached."""
        assert self._graph is not None
        with ranks.together(trainer):
            if self.dense is None:
                self.dense = self.amounts()
                self.widths = {group.name: group.size for group in self._graph.groups}
                checks.check_penalty(self.scores.scoring, self._scales)
                if self.scores.of_training and not thawing.thaws(trainer):
                    thawing.warn_frozen(self._graph, self.network, self._whole)
            limit = self.budget.limit(self.dense)
            options = self.options(module)
            check_reachable(self._graph, limit, options, dense=self.widths, latency=self._latency)
        show(trainer, costs(self.amounts(), part=self.part(trainer)))

    def amounts(self) -> Amounts:
        """What the network costs now."""
        assert self._graph is not None
        return amounts(self._graph, dense=self.widths, latency=self._latency)

    @property
    def _timed(self) -> bool:
        return self.budget.needs_latency or self.selection.per == "latency"

    def options(self, module: L.LightningModule) -> Selection:
        """The selection for the device that the module is on."""
        dtype = module.dtype
        assert not isinstance(dtype, str)
        return self.selection.resolved(module.device, dtype, timed=self._timed)

    def look(self, module: L.LightningModule) -> None:
        """Looks at the network anew, after its widths have changed."""
        self.read(module, trace(self.network, self.example.on(module, self.network)))

    def read(self, module: L.LightningModule, graph: ChannelGraph) -> None:
        """Takes what is to be known from the graph of the network as it is now."""
        self._whole = protected(graph, self.selection.protect)
        self._graph = graph
        if self._timed:  # layers of widths that were measured before are read from the cache
            multiple = self.options(module).multiple
            inputs = self.example.on(module, self.network)
            self._latency = latency_of(graph, self.network, inputs, multiple=multiple)
        if self.scores.scoring.bn_penalty:
            self._scales = penalty.penalised(self.network, self._graph, self._whole)
