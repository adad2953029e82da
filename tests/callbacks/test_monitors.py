from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from seg_pruning.callbacks.monitors import reset_monitors_
from tests.callbacks.modules import Data, Stranger, fit, pruning, size


@pytest.mark.parametrize("criterion", ["l2", "taylor"])
def test_the_best_is_no_denser_than_the_target(tmp_path, criterion):
    """The metric gets worse by far with each epoch: the dense one is best unless it is forgotten."""
    best = ModelCheckpoint(tmp_path / "best", filename="{epoch}", monitor="val/loss", mode="min")
    module = Stranger()
    dense = size(module)
    trainer = fit(tmp_path, module, pruning(criterion=criterion), best)
    assert best.best_model_path.endswith("epoch=3.ckpt")
    results = trainer.test(module, Data(), ckpt_path="best", verbose=False)
    assert results[0]["val/params"] == size(module) <= 0.5 * dense


def test_early_stopping_counts_anew_from_each_cut(tmp_path):
    """The metric never improves: patience 2 would end the training at epoch 2, before the last cut."""
    stopping = EarlyStopping("val/loss", patience=2)
    trainer = fit(tmp_path, Stranger(), pruning(), stopping, max_epochs=20)
    assert trainer.current_epoch == 6
    assert stopping.stopped_epoch == 5


class Plateau(Stranger):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        scheduler = ReduceLROnPlateau(optimizer, patience=1, factor=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"}}


def test_plateaus_count_anew_from_each_cut(tmp_path):
    """Without cuts the rate falls after epochs 2 and 4; counted anew at 1 and 3 not before epoch 5."""
    rates = {}
    for name, callbacks in (("alone", ()), ("pruned", (pruning(),))):
        module = Plateau()
        fit(tmp_path / name, module, *callbacks, max_epochs=5)
        rates[name] = module.optimizers().param_groups[0]["lr"]
    assert rates == {"alone": pytest.approx(0.01), "pruned": 1.0}


@pytest.mark.parametrize(("mode", "worst"), [("min", float("inf")), ("max", -float("inf"))])
def test_what_is_forgotten(mode, worst):
    checkpoint = ModelCheckpoint(monitor="x", mode=mode)
    checkpoint.best_model_path = checkpoint.kth_best_model_path = "dense.ckpt"
    checkpoint.last_model_path = "last.ckpt"
    checkpoint.best_model_score = checkpoint.current_score = checkpoint.kth_value = torch.tensor(0.5)
    checkpoint.best_k_models = {"dense.ckpt": torch.tensor(0.5)}
    stopping = EarlyStopping("x", mode=mode)
    stopping.wait_count, stopping.best_score = 2, torch.tensor(0.5)
    plateau = ReduceLROnPlateau(torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1), mode=mode)
    plateau.best, plateau.num_bad_epochs = 0.5, 3
    reset_monitors_(
        SimpleNamespace(
            checkpoint_callbacks=[checkpoint],
            early_stopping_callbacks=[stopping],
            lr_scheduler_configs=[SimpleNamespace(scheduler=plateau)],
        )
    )
    assert (checkpoint.best_model_path, checkpoint.kth_best_model_path, checkpoint.best_k_models) == (
        "",
        "",
        {},
    )
    assert (checkpoint.best_model_score, checkpoint.current_score) == (None, None)
    assert checkpoint.last_model_path == "last.ckpt"
    assert checkpoint.kth_value == stopping.best_score == plateau.best == worst
    assert stopping.wait_count == plateau.num_bad_epochs == 0
