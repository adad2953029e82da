"""Asked, predicted and got of networks that were cut, against what torch counts."""

import copy

import pytest
import torch

import seg_pruning as sp
from seg_pruning.report.spending import spending
from seg_pruning.surgery.inputs import Inputs
from tests.pruning.test_amounts import IMAGE, UNet, counted

TIMES = {"dense": 8.0, "pruned": 3.0}


def networks(cuts: int) -> dict[str, UNet]:
    torch.manual_seed(0)
    dense = UNet()
    pruned = copy.deepcopy(dense)
    for _ in range(cuts):
        sp.prune_(pruned, IMAGE, budget={"params": 0.7})
    return {"dense": dense, "pruned": pruned}


@pytest.mark.parametrize("cuts", [0, 1, 2])
def test_amounts_are_those_of_the_two_networks(cuts: int) -> None:
    nets = networks(cuts)
    budget = sp.Budget(params=0.5, macs=10**6, memory=0.9, channels=100, latency=0.5)
    found = spending(budget, nets, Inputs.of(IMAGE), milliseconds=TIMES)
    dense, got = counted(nets["dense"]), counted(nets["pruned"])
    assert {name: int(found[name]["got"]) for name in got} == got
    assert {name: found[name]["predicted"] for name in got} == got
    asked = {name: found[name]["asked"] for name in got}
    assert asked == {"params": dense["params"] // 2, "macs": 10**6, "memory": int(0.9 * dense["memory"])}
    kept = sum(
        nets["pruned"].get_submodule(name)[0].out_channels for name in ("high", "low", "deep", "up", "out")
    )
    assert found["channels"] == {"asked": 100, "predicted": kept, "got": kept}
    assert found["latency_ms"] == {"asked": 4.0, "predicted": None, "got": 3.0}
