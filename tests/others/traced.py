"""Each network of the register, with random weights, and its graph."""

from functools import lru_cache

import torch
from torch import nn

from seg_pruning.surgery.graph import ChannelGraph
from seg_pruning.surgery.trial import trace
from tests.others.cases import CASES
from tests.others.networks import LOADED
from tests.surgery.oracle import answers, randomise_

assert LOADED


@lru_cache(maxsize=2)
def traced(name: str) -> tuple[nn.Module, ChannelGraph]:
    torch.manual_seed(0)
    model = randomise_(CASES[name].build())
    answers(model, CASES[name].example())  # an old weight norm cannot be copied before its first pass
    return model, trace(model, CASES[name].example())
