"""Cuts by optimizer step; there are three batches in an epoch."""

import lightning as L
import pytest
import torch

from seg_pruning.callbacks import IterativePruning, Schedule
from seg_pruning.surgery.errors import PruningError
from tests.callbacks.interrupted import GOING_ON, assert_goes_on
from tests.callbacks.modules import Data, Stranger, fit, size

pytestmark = GOING_ON


def by_step(criterion: str = "l2", **steps: int) -> IterativePruning:
    schedule = Schedule("linear", **{"start_step": 2, "every_n_steps": 2, "end_step": 6, **steps})
    return IterativePruning(budget={"params": 0.5}, criterion=criterion, schedule=schedule)


class Sizes(L.Callback):
    """Parameters in each batch, and the optimizer steps and pending gradients at each change."""

    def __init__(self) -> None:
        self.at: dict[int, int] = {}
        self.backward = 0
        self.pending: list[int] = []
        self.last = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        now = size(pl_module)
        if self.last and now != self.last:
            self.pending.append(self.backward)
        self.last = now
        self.at.setdefault(trainer.global_step, now)

    def on_after_backward(self, trainer, pl_module):
        self.backward += 1

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.backward = 0


@pytest.mark.parametrize("criterion", ["l2", "taylor"])
def test_channels_leave_before_the_chosen_steps(tmp_path, criterion):
    module, sizes = Stranger(), Sizes()
    dense = size(module)
    fit(tmp_path, module, by_step(criterion), sizes, max_epochs=3)
    widths = [sizes.at[step] for step in range(9)]
    assert widths[0] == widths[1] == dense
    assert widths[2] == widths[3] < dense
    assert widths[4] == widths[5] < widths[2]
    assert widths[6] == widths[8] < widths[4]
    assert 0.5 * dense - 150 < widths[6] <= 0.5 * dense


@pytest.mark.parametrize("accumulate", [2, 4])
def test_no_cut_falls_between_accumulated_backward_passes(tmp_path, accumulate):
    """Five batches, so that windows also end with the epoch."""
    module, sizes = Stranger(), Sizes()
    fit(
        tmp_path,
        module,
        by_step("taylor", start_step=1, every_n_steps=1, end_step=3),
        sizes,
        data=Data(10),
        max_epochs=3,
        accumulate_grad_batches=accumulate,
    )
    assert sizes.pending == [0, 0, 0]
    assert len(set(sizes.at.values())) == 4
    assert [sizes.at[step] > sizes.at[step + 1] for step in range(3)] == [True] * 3


@pytest.mark.parametrize(("criterion", "step"), [("taylor", 1), ("taylor", 2), ("taylor", 4), ("l2", 7)])
def test_an_interrupted_run_goes_on_to_the_bit(tmp_path, criterion, step):
    assert_goes_on(tmp_path, lambda: [by_step(criterion)], step=step, max_epochs=3)


class TwoOptimizers(Stranger):
    """Steps twice in each batch, so that odd numbers of steps are jumped over."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            loss = super().training_step(batch, batch_idx)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self):
        return [
            torch.optim.SGD(self.net.first.parameters(), lr=0.01),
            torch.optim.SGD([*self.net.down.parameters(), *self.net.last.parameters()], lr=0.01),
        ]


def test_a_step_that_is_jumped_over_is_made_up_for(tmp_path):
    module, sizes = TwoOptimizers(), Sizes()
    fit(tmp_path, module, by_step(start_step=3, every_n_steps=4, end_step=7), sizes, max_epochs=3)
    assert [step for step in sizes.at if sizes.at[step] < sizes.at.get(step - 2, 0)] == [4, 8]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_epochs": 2}, "step 6 .* of 6, which leaves no step to recover: choose max_steps=7"),
        ({"max_epochs": -1, "max_steps": 5}, "step 6 .* of 5"),
        ({"max_epochs": 3, "accumulate_grad_batches": 3}, "step 6 .* of 3"),
    ],
)
def test_steps_beyond_the_training_are_refused(tmp_path, settings, message):
    with pytest.raises(PruningError, match=message):
        fit(tmp_path, Stranger(), by_step(), **settings)


def test_missed_steps_are_refused(tmp_path):
    fit(tmp_path, Stranger(), max_epochs=1)
    file = tmp_path / "checkpoints" / "epoch=0.ckpt"
    with pytest.raises(
        PruningError, match=r"goes on at step 3 .*cuts of steps 2 were not made.*start_step=4"
    ):
        fit(tmp_path, Stranger(), by_step(), ckpt_path=file)
