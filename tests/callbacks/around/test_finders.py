"""Finders train for a few steps within a fit, and put everything back; all images are the same."""

import pytest
import torch
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from torch.utils.data import DataLoader

from seg_pruning.callbacks import IterativePruning, Recovery, Schedule
from tests.callbacks.interrupted import GOING_ON, SeedEachStep, assert_equal_runs
from tests.callbacks.modules import Data, Stranger, fit, pruning, size

pytestmark = [
    *GOING_ON,
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
]


class Sized(Data):
    """Has the attribute that the finder sets."""

    def __init__(self) -> None:
        super().__init__(same=True)
        self.batch_size = 2

    def train_dataloader(self):
        return DataLoader(self.pairs, batch_size=self.batch_size)


class Rated(Stranger):
    def __init__(self) -> None:
        super().__init__()
        self.lr = 0.01


class Milestone(LearningRateFinder):
    """As its documentation shows it: looks again at the start of an epoch, here after the first cut."""

    def on_fit_start(self, *args):
        pass

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            self.lr_find(trainer, pl_module)


def by_step() -> IterativePruning:
    schedule = Schedule("linear", start_step=2, every_n_steps=2, end_step=6)
    return IterativePruning(budget={"params": 0.5}, criterion="taylor", schedule=schedule)


def recovering() -> IterativePruning:
    recovery = Recovery(rewind="lr", rewarm=2, compensate=2)
    return pruning(criterion="taylor", schedule=Schedule("linear", recovery=recovery))


FINDERS = {
    "rate": lambda: LearningRateFinder(num_training_steps=4, update_attr=False),
    "size": lambda: BatchSizeFinder(steps_per_trial=2, max_trials=1),
    "milestone": lambda: Milestone(num_training_steps=4, update_attr=False),
}


@pytest.mark.parametrize("finder", FINDERS)
@pytest.mark.parametrize("own", [by_step, recovering])
def test_a_training_with_a_finder_is_the_training_without(tmp_path, own, finder):
    """Neither cuts nor scores nor recovery know of the trials."""
    runs = []
    for finders in ([], [FINDERS[finder]()]):
        torch.manual_seed(0)
        folder = tmp_path / str(len(finders))
        runs.append(fit(folder, Rated(), SeedEachStep(), own(), *finders, data=Sized()))
    assert size(runs[0].lightning_module) <= 0.5 * size(Stranger())
    assert_equal_runs(*runs)


def test_the_rate_that_was_found_is_trained_with(tmp_path):
    finder = LearningRateFinder(num_training_steps=18, min_lr=1e-4, max_lr=0.1, early_stop_threshold=None)
    module = Rated()
    trainer = fit(tmp_path, module, pruning(criterion="taylor"), finder, data=Sized(), max_epochs=8)
    assert module.lr == finder.optimal_lr.suggestion() != 0.01
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(module.lr * 0.9**8)
    assert size(module) <= 0.5 * size(Stranger())
