"""The learning rate is the scheduler's business alone; cuts are at epochs 1 and 3, of 3 steps each."""

import lightning as L
import pytest
import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingWarmRestarts,
    CyclicLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from tests.callbacks.modules import Stranger, fit, pruning, size

SCHEDULERS = {
    "one cycle": (lambda o: OneCycleLR(o, 0.1, total_steps=15), "step"),
    "warm restarts": (lambda o: CosineAnnealingWarmRestarts(o, 2), "epoch"),
    "cyclic": (lambda o: CyclicLR(o, 0.01, 0.1, step_size_up=4), "step"),
    "warm-up": (lambda o: LambdaLR(o, lambda step: min(1.0, (step + 1) / 7)), "step"),
    "sequential": (
        lambda o: SequentialLR(o, [LinearLR(o, 0.1, total_iters=5), MultiStepLR(o, [2, 5])], [5]),
        "step",
    ),
    "plateau": (lambda o: ReduceLROnPlateau(o, patience=2, factor=0.1), "epoch"),
}


class Scheduled(Stranger):
    def __init__(self, name: str) -> None:
        super().__init__("sgd")
        self.name = name

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)
        scheduler, interval = SCHEDULERS[self.name]
        config = {"scheduler": scheduler(optimizer), "interval": interval, "monitor": "val/params"}
        return {"optimizer": optimizer, "lr_scheduler": config}


class Rates(L.Callback):
    """Learning rate and momentum of each step."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        group = optimizer.param_groups[0]
        self.seen.append((group["lr"], group["momentum"]))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_rate_is_that_of_the_training_without_cuts(tmp_path, name):
    """The plateau watches the size, so that it would fall at epoch 3 without cuts, and is counted anew."""
    alone, pruned = Rates(), Rates()
    fit(tmp_path / "a", Scheduled(name), alone)
    module = Scheduled(name)
    fit(tmp_path / "b", module, pruning(), pruned)
    assert size(module) <= 0.5 * size(Stranger())
    assert len(set(alone.seen)) > 1
    if name == "plateau":
        assert (len(set(alone.seen)), len(set(pruned.seen))) == (2, 1)
    else:
        assert pruned.seen == alone.seen
