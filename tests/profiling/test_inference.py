import torch
from torch import nn

from seg_pruning.profiling.inference import device_of, dtype_of, evaluating
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
