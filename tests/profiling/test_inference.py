import pytest
import torch
from torch import nn

import seg_pruning as sp
from seg_pruning.profiling.inference import cut_for_now, device_of, dtype_of, evaluating
from seg_pruning.surgery.inputs import Inputs

FLOAT = Inputs.of((torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.float64)))


def test_every_module_gets_its_own_mode_back_even_with_a_train_of_its_own() -> None:
    class Frozen(nn.Sequential):
        def train(self, mode: bool = True) -> "Frozen":
            return super().train(False)

    model = nn.Sequential(Frozen(nn.BatchNorm2d(1)), nn.BatchNorm2d(1)).train()
    model[0][0].training = True
    before = [module.training for module in model.modules()]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before


def test_device_and_dtype_come_from_the_network_or_else_from_the_inputs() -> None:
    assert dtype_of(nn.Linear(1, 1).half(), FLOAT) is torch.float16
    assert dtype_of(nn.Identity(), FLOAT) is torch.float64
    assert dtype_of(nn.Identity(), Inputs.of(torch.zeros(1, dtype=torch.int64))) is torch.float32
    assert device_of(nn.Linear(1, 1, device="meta"), FLOAT).type == "meta"
    assert device_of(nn.Identity(), FLOAT).type == "cpu"


def test_a_cut_for_now_is_taken_back_when_it_cannot_be_made() -> None:
    image = torch.ones(1, 1, 2, 2)
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 1, 1))
    graph = sp.trace(net, image)
    cut = graph.cut(sp.Plan({"0": (0,)}, {"0": 4}))
    sp.apply_(net, cut)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(sp.PruningError, match="trace this network"), cut_for_now(net, cut):
        pytest.fail("it was entered")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
