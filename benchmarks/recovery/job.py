"""One arm at one budget from one dense network: cut, trained, tested."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import seg_pruning as sp
from benchmarks.recovery.arms import Arm, Budget, Ours
from benchmarks.recovery.cuts import Pairs, cut_, redraw_
from seg_pruning.callbacks import Distillation, IterativePruning, Recovery, Schedule
from seg_pruning.data import KvasirSEG
from seg_pruning.profiling import compare_latency
from seg_pruning.tasks import ChannelsLast, SemanticSegmentation
from seg_pruning.tasks.scores import count_pixels, dice_and_iou

SCORED = 20
"""Batches of training images that scores, where one cut is made, and compensation read."""

THRESHOLDS = tuple(round(0.05 * n, 2) for n in range(1, 20))


@dataclass(frozen=True)
class Job:
    """What is run.

    Attributes:
        name: of the arm.
        budget: what is kept.
        seed: of the dense network, and of the order of the data.
        size: height and width of the images.
    """

    name: str
    budget: Budget
    seed: int
    size: int

    def __str__(self) -> str:
        return f"{self.size} px, {self.budget[0]} {self.budget[1]:g}, seed {self.seed}: {self.name}"


@dataclass(frozen=True)
class Found:
    """What came of it.

    Attributes:
        params: of the network that was tested.
        macs: of an image.
        latency: p50 of a float32 image on one thread, relative to the dense network, in turns.
        val: mean Dice of the validation images at each of `THRESHOLDS`.
        threshold: the best of them there.
        test: Dice of each test image at threshold 0.5.
        tuned: the same at `threshold`.
        seconds: of cutting and training.
    """

    params: int
    macs: int
    latency: float
    val: list[float]
    threshold: float
    test: list[float]
    tuned: list[float]
    seconds: float


def run(job: Job, arm: Arm, root: Path, dense: Path) -> Found:
    """Cuts the dense network of a checkpoint, trains it, tests its last epoch."""
    L.seed_everything(job.seed, verbose=False)
    torch.set_num_threads(1)
    data = loaded(root, job.size, job.seed)
    task = SemanticSegmentation(
        optimizer=partial(torch.optim.AdamW, lr=arm.rate, weight_decay=1e-4), scheduler="cosine"
    )
    task.load_state_dict(torch.load(dense, map_location="cpu", weights_only=True)["state_dict"])
    image = torch.zeros(1, 3, job.size, job.size)
    start = perf_counter()
    if arm.one_shot:
        task.network = cut_(task.network, image, arm, job.budget, scored(data), task.loss)
    if arm.scratch:
        redraw_(task.network)
    callbacks: list[L.Callback] = [ChannelsLast()]
    if isinstance(arm.cut, Ours) and not arm.one_shot:
        callbacks.append(_iterative(arm, arm.cut, job.budget))
    if arm.distil:
        callbacks.append(Distillation(teacher=str(dense)))
    task.train()  # Lightning leaves modes alone, and scores were taken in eval mode
    if arm.epochs:
        train(task, data, arm.epochs, callbacks)
    seconds = perf_counter() - start
    return tested(task, data, image, seconds)


@cache
def loaded(root: Path, size: int, seed: int) -> KvasirSEG:
    """The data; decoded once a process."""
    data = KvasirSEG(root, image_size=size, batch_size=16, num_workers=0, seed=seed)
    data.prepare_data()
    return data


def scored(data: KvasirSEG) -> Pairs:
    """The first batches of an epoch of training."""
    return [(batch["image"], batch["mask"]) for batch in islice(data.train_dataloader(), SCORED)]


def _iterative(arm: Arm, cut: Ours, budget: Budget) -> IterativePruning:
    recovery = Recovery(compensate=SCORED if arm.after == "compensated" else 0)
    last = None if cut.steps is None else cut.steps * cut.events
    return IterativePruning(
        budget=dict([budget]),
        criterion=cut.criterion,
        schedule=Schedule("cubic", every_n_steps=cut.steps, end_step=last, recovery=recovery),
        selection=cut.selection,
        end_epoch=cut.events if last is None else None,
    )


def train(task: SemanticSegmentation, data: KvasirSEG, epochs: int, callbacks: Iterable[L.Callback]) -> None:
    """Trains without looking at validation images."""
    L.Trainer(
        accelerator="cpu",
        devices=1,
        precision="bf16-mixed",
        max_epochs=epochs,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    ).fit(task, data)


def tested(task: SemanticSegmentation, data: KvasirSEG, image: Tensor, seconds: float) -> Found:
    """Dice on both other parts, and what the network costs."""
    network = task.network.float().eval()
    val, test = dice(network, data.val_dataloader()), dice(network, data.test_dataloader())
    best = int(val.mean(0).argmax())
    cost = sp.cost(network, image)
    whole = SemanticSegmentation().network.eval()
    times = compare_latency({"dense": whole, "pruned": network}, image, runs=20)
    return Found(
        params=cost.params,
        macs=cost.macs,
        latency=times["pruned"].p50_ms / times["dense"].p50_ms,
        val=val.mean(0).tolist(),
        threshold=THRESHOLDS[best],
        test=test[:, THRESHOLDS.index(0.5)].tolist(),
        tuned=test[:, best].tolist(),
        seconds=seconds,
    )


@torch.inference_mode()
def dice(network: nn.Module, loader: DataLoader[Any]) -> Tensor:
    """Dice of each image at each threshold, `(images, thresholds)`; float32 inference."""
    rows = []
    for batch in loader:
        probability = network(batch["image"])[:, 0].sigmoid()
        at = [count_pixels((probability > t).long(), batch["mask"], classes=1) for t in THRESHOLDS]
        rows.append(torch.stack([dice_and_iou(counts)[0][:, 0] for counts in at], dim=1))
    return torch.cat(rows)
