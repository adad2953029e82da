"""Lightning's own boring classes: linear layers, loaders of no length, dicts, manual optimization."""

import pytest
import torch
from lightning.pytorch.demos.boring_classes import (
    BoringDataModule,
    BoringDataModuleNoLen,
    BoringModel,
    DemoModel,
    ManualOptimBoringModel,
    RandomDictDataset,
)
from torch import nn
from torch.utils.data import DataLoader

from seg_pruning.surgery.errors import PruningError
from tests.callbacks.modules import pruning, size, trainer_in

SHORT = {"limit_train_batches": 3, "limit_val_batches": 1, "max_epochs": 5}


def deeper(kind):
    """The same with a hidden layer, without which there is nothing that could leave."""

    class Deeper(kind):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 2))

    return Deeper()


class FromDicts(BoringModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 2))

    def training_step(self, batch, batch_idx):
        return super().training_step(batch["a"], batch_idx)

    def train_dataloader(self):
        return DataLoader(RandomDictDataset(32, 8), batch_size=2)


@pytest.mark.parametrize("criterion", ["taylor", "l2"])
@pytest.mark.parametrize(
    ("make", "data"),
    [
        (lambda: deeper(BoringModel), None),
        (lambda: deeper(BoringModel), BoringDataModule),
        (lambda: deeper(BoringModel), BoringDataModuleNoLen),
        (lambda: deeper(ManualOptimBoringModel), None),
        (FromDicts, None),
    ],
    ids=["its own loaders", "data module", "no length", "manual", "dicts"],
)
def test_half_of_the_hidden_units_leave(tmp_path, make, data, criterion):
    module = make()
    dense = size(module)
    trainer = trainer_in(tmp_path, [pruning(criterion=criterion)], logger=False, **SHORT)
    trainer.fit(module, datamodule=data and data())
    assert size(module) <= 0.5 * dense
    assert module.layer[0].out_features == module.layer[2].in_features < 16
    trainer.test(module, datamodule=data and data(), verbose=False)


@pytest.mark.parametrize("kind", [BoringModel, DemoModel])
def test_what_has_nothing_that_could_leave_is_said(tmp_path, kind):
    module = kind()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    loader = DataLoader(torch.rand(4, 32))
    with pytest.raises(PruningError, match=r"cannot be reached|nothing"):
        trainer_in(tmp_path, [pruning()], logger=False, **SHORT).fit(module, loader)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
