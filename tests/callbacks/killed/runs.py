"""Trainings that can be killed at any moment: what goes on from `last` ends like what was never killed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from seg_pruning.callbacks import Distillation, Recovery, Schedule, Scoring
from seg_pruning.cli import main
from seg_pruning.pruning.criteria import Taylor
from seg_pruning.surgery.atomic import whole_file
from seg_pruning.surgery.note import structure_of
from seg_pruning.tracking import RunFolder
from tests.callbacks.interrupted import SeedEachStep
from tests.callbacks.modules import Data, Stranger, pruning, trainer_in

END = "end.pt"


class Resumable(DataLoader):
    """Says how far in the epoch it is, and goes on from there: so Lightning skips what was seen."""

    seen = 0
    skipped = 0

    def __iter__(self) -> Iterator[Any]:
        first, self.skipped = self.skipped, 0
        for self.seen, batch in enumerate(super().__iter__(), 1):
            if self.seen > first:
                yield batch

    def state_dict(self) -> dict[str, int]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.skipped = state["seen"] % len(self)


class Sorted(Data):
    """The order of the images follows from the epoch, and a loader that goes on in the middle of one."""

    def __init__(self) -> None:
        super().__init__(by_epoch=True)

    def train_dataloader(self) -> DataLoader:
        return Resumable(self.pairs, batch_size=2, sampler=self.sampler)


class InEpochs(ModelCheckpoint):
    """Writes within epochs only.

    What Lightning 2.6 writes after the last batch of an epoch goes on without that epoch's validation, and
    what is then written in the next epoch sees its batches twice; with and without pruning.
    """

    def on_train_batch_end(self, trainer, *args):
        if not trainer.is_last_batch:
            super().on_train_batch_end(trainer, *args)


class Judged(Stranger):
    """Validation is as bad as is told here, by epoch."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.log("val/dice", 0.5 if self.current_epoch in (3, 6) else 0.9)


def loss(output: torch.Tensor, batch: Any) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(output, batch[1])


@dataclass(frozen=True)
class Case:
    """A training; each call of a field makes new objects."""

    callbacks: Callable[[], Sequence[L.Callback]]
    saver: Callable[..., ModelCheckpoint] = ModelCheckpoint
    module: Callable[[], L.LightningModule] = Stranger
    max_epochs: int = 6
    save_last: Literal["link"] | bool = True


RICH = Recovery(compensate=2, recalibrate=2, rewarm=3, rewind="weights", rewind_to=2)
BY_STEP = Schedule("linear", start_step=2, every_n_steps=3, end_step=8, recovery=Recovery(rewarm=2))
PASS = Scoring(Taylor(of="activation"), batches=2, loss=loss)
FLOOR = {"params": 0.3, "min": {"val/dice": 0.8}}

CASES = {
    "by epoch": Case(lambda: [pruning(criterion="taylor")], partial(ModelCheckpoint, monitor="val/loss")),
    "linked": Case(lambda: [pruning(criterion="taylor")], save_last="link"),
    "in epochs": Case(lambda: [pruning(criterion="taylor")], partial(InEpochs, every_n_train_steps=1)),
    "by step": Case(
        lambda: [
            pruning(criterion="taylor", schedule=BY_STEP, start_epoch=1, every_n_epochs=1, end_epoch=None)
        ],
        partial(InEpochs, every_n_train_steps=2),
    ),
    "recovery": Case(
        lambda: [pruning(criterion=PASS, schedule=Schedule(recovery=RICH)), Distillation()],
        partial(ModelCheckpoint, save_top_k=-1),
    ),
    "recovery in epochs": Case(
        lambda: [pruning(criterion=PASS, schedule=Schedule(recovery=RICH)), Distillation()],
        partial(InEpochs, every_n_train_steps=2),
    ),
    "floor": Case(
        lambda: [pruning(budget=FLOOR, every_n_epochs=1, end_epoch=5)],
        partial(ModelCheckpoint, monitor="val/loss"),
        Judged,
        9,
    ),
    "floor, seldom saved": Case(
        lambda: [pruning(budget=FLOOR, every_n_epochs=1, end_epoch=5)],
        partial(ModelCheckpoint, every_n_epochs=4),
        Judged,
        9,
    ),
}


COMMAND = "command line"
CONFIG = {
    "trainer": {
        "max_epochs": 6,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        "callbacks": [
            {
                "class_path": "IterativePruning",
                "init_args": {"budget": {"params": 0.5}, "every_n_epochs": 2, "end_epoch": 3},
            }
        ],
    },
    "model": {
        "class_path": "SemanticSegmentation",
        "init_args": {"arch": {"class_path": "tests.tasks.tiny.TinyNet", "init_args": {"width": 8}}},
    },
    "data": {"class_path": "tests.tasks.tiny.TinyData"},
}


def command(folder: Path) -> None:
    """The same by the command line, always with the same words."""
    os.chdir(folder)
    sys.argv = ["seg-pruning"]
    Path("config.yaml").write_text(yaml.safe_dump(CONFIG))
    main(["fit", "--config", "config.yaml", "--run.name", "mine", "--ckpt_path", "last"])
    last = RunFolder("runs", "mine").last()
    assert last is not None
    found = torch.load(last, weights_only=True)
    kept = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "seg_pruning")
    with whole_file(folder / END) as draft:
        torch.save({name: found[name] for name in kept}, draft)


def train(folder: Path, name: str) -> None:
    """Trains from the last checkpoint in `folder`, from the start where there is none, and notes the end."""
    if name == COMMAND:
        command(folder)
        return
    case = CASES[name]
    saver = case.saver(dirpath=folder / "c", save_last=case.save_last)
    trainer = trainer_in(
        folder, [SeedEachStep(), *case.callbacks(), saver], max_epochs=case.max_epochs, logger=False
    )
    begun = (folder / "c").is_dir() and any(file.exists() for file in (folder / "c").glob("last*.ckpt"))
    L.seed_everything(int(begun), verbose=False)  # what goes on does not start from the same weights
    if not begun:
        torch.manual_seed(0)
    trainer.fit(case.module(), Sorted(), ckpt_path="last" if begun else None)
    with whole_file(folder / END) as draft:
        torch.save(end_of(trainer), draft)


def end_of(trainer: L.Trainer) -> dict[str, Any]:
    """All that a run ends with."""
    module = trainer.lightning_module
    structure = structure_of(module)
    return {
        "structure": None if structure is None else structure.to_dict(),
        "weights": dict(module.state_dict()),
        "optimizer": trainer.optimizers[0].state_dict(),
        "scheduler": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
        "steps": trainer.global_step,
    }
