"""Graphs that are traced once, scores at random, and what a plan keeps and costs."""

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from seg_pruning.pruning.budgets import Amounts, amounts
from seg_pruning.pruning.criteria import Random
from seg_pruning.surgery.costs import Vector
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
    return amounts(graph, graph.widths(plan))


def one_step_more(graph: ChannelGraph, plan: Plan, round_to: int = 1) -> Iterator[Vector]:
    """The widths with one more column of each group that lost some, or one more branch of each set."""
    widths, groups = graph.widths(plan), len(graph.prunable)
    rows = np.array([float(len(group.rows)) for group in graph.prunable])
    for at, branches in enumerate(graph.branches):
        held = [i for i, group in enumerate(graph.prunable) if group.name in branches.rows]
        columns = widths[held] / widths[groups + at]
        rows[held] = widths[groups + at]
        more = math.gcd(branches.size, round_to)
        if widths[groups + at] + more <= branches.size:
            wider = widths.copy()
            wider[held] += columns * more
            wider[groups + at] += more
            yield wider
    for i, group in enumerate(graph.prunable):
        more = round_to // math.gcd(len(group.rows), round_to)
        if widths[i] / rows[i] + more <= len(group.rows[0]):
            yield widths + more * rows[i] * (np.arange(len(widths)) == i)
