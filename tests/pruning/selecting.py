"""Graphs that are traced once, scores at random, and what a plan keeps and costs."""

from functools import cache

import numpy as np
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from seg_pruning.pruning.budgets import Amounts, amounts
from seg_pruning.pruning.criteria import Random
from seg_pruning.surgery.graph import ChannelGraph
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace

Scores = dict[str, Tensor]


SMP = {
    "unet": lambda: smp.Unet("resnet18", encoder_weights=None),
    "fpn": lambda: smp.FPN("resnext50_32x4d", encoder_weights=None),
}


@cache
def small(kind: type) -> tuple[nn.Module, ChannelGraph]:
    net = kind()
    return net, trace(net, kind.example())


@cache
def large(name: str) -> ChannelGraph:
    return trace(SMP[name](), torch.randn(1, 3, 64, 64))


def random_scores(graph: ChannelGraph, seed: int = 0) -> Scores:
    return {group.name: Random(seed)(group, {}, {}) + 0.1 for group in graph.prunable}


def kept_of(graph: ChannelGraph, plan: Plan) -> dict[str, set[int]]:
    return {group.name: set(plan.kept.get(group.name, range(group.size))) for group in graph.prunable}


def spent(graph: ChannelGraph, plan: Plan) -> Amounts:
    return amounts(graph, np.array([len(kept) for kept in kept_of(graph, plan).values()], dtype=np.float64))
