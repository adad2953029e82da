"""A clock that works times out instead of measuring: so many milliseconds for each multiply-accumulate."""

from collections.abc import Callable, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from seg_pruning.profiling.clock import Call
from seg_pruning.profiling.layers import LayerCall

PER_MAC = 1e-6


def macs(call: Call) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() // 2


class Worked:
    """Layers take what their MACs say; of whole networks `network` says what they take, given theirs."""

    def __init__(self, network: Callable[[float], float] = lambda layers: layers) -> None:
        self.network = network
        self.layers: list[tuple[str, int, int]] = []

    def milliseconds(self, calls: Sequence[Call]) -> list[float]:
        return [self.one(call) for call in calls]

    def one(self, call: Call) -> float:
        found = macs(call) * PER_MAC
        if not isinstance(call, LayerCall):
            return self.network(found)
        self.layers.append((call.layer.key, call.first, call.second))
        return found
