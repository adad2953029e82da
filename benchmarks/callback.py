"""What `IterativePruning` costs a training: a step where no event is due, and an event.

    python -m benchmarks.callback

One training for each criterion. Its steps take turns with and without the callback; every other pair goes
backwards. In between there is one event. Prints two tables in Markdown:

- the share of a step that the callback takes before the event, after it until the next validation, and after
  that: differences of pairs, and its own hooks alone;
- seconds of the event and of its parts, in steps.
"""

import argparse
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.scores import spread
from seg_pruning.callbacks import IterativePruning, Schedule, cutting, recovering
from seg_pruning.profiling.inference import device_name
from seg_pruning.tasks import SemanticSegmentation

HOOKS = (
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_end",
)
PHASES = ("before", "after, not validated", "after")


class Images(Dataset[dict[str, Tensor]]):
    """Noise, and where its first channel is bright."""

    def __init__(self, side: int) -> None:
        self.image = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))
        self.mask = (self.image[0] > 0.5).long()

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.image, "mask": self.mask, "name": ""}


class Seconds:
    """Seconds of calls, by name."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.of: dict[str, float] = defaultdict(float)

    def now(self) -> float:
        """Once the device has done all that it was asked."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()

    def watch(self, owner: object, attribute: str, name: str) -> None:
        """Adds up the calls of `owner.attribute` as `name`."""
        inner: Callable[..., Any] = getattr(owner, attribute)

        @wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = self.now()
            try:
                return inner(*args, **kwargs)
            finally:
                self.of[name] += self.now() - start

        setattr(owner, attribute, timed)


class Turns(L.Callback):
    """Named last: takes the time of each step, and the callback out of the next one where it is its turn."""

    def __init__(self, own: IterativePruning, seconds: Seconds, pairs: int) -> None:
        self.own = own
        self.seconds = seconds
        self.warm = 4
        self.length = self.warm + 2 * pairs
        self.steps: dict[str, list[tuple[bool, float, float]]] = {phase: [] for phase in PHASES}
        self.done = 0
        self.start = 0.0
        self.has_own = True

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Ends a step."""
        now, hooks = self.seconds.now(), self.seconds.of.pop("hooks", 0.0)
        phase, place = divmod(self.done, self.length)
        if place >= self.warm:
            self.steps[PHASES[phase]].append((self.has_own, now - self.start, hooks))
        self.done += 1
        place = self.done % self.length
        # All phases begin with the callback, which makes the event and sees the validation.
        self.has_own = place < self.warm or place % 4 in (0, 3)
        callbacks: list[L.Callback] = [self.own, self] if self.has_own else [self]
        trainer.callbacks = callbacks  # type: ignore[attr-defined] # Lightning does not type it
        self.start = self.seconds.now()

    def pairs(self, phase: str) -> Iterator[tuple[float, float, float]]:
        """Seconds of a step without, of its neighbour with, and of the hooks in that."""
        found = self.steps[phase]
        for one, other in zip(found[::2], found[1::2], strict=True):
            own, plain = (one, other) if one[0] else (other, one)
            assert own[0]
            assert not plain[0]
            yield plain[1], own[1], own[2]


def train(criterion: str, given: argparse.Namespace) -> tuple[Turns, Seconds]:
    """A training with one event after the first third of its steps, and a validation after the second."""
    torch.manual_seed(0)
    task = SemanticSegmentation("unet", encoder=given.encoder)
    length = 4 + 2 * given.pairs
    own = IterativePruning(
        budget={"macs": 0.5}, criterion=criterion, schedule=Schedule("one_shot", start_step=length)
    )
    seconds = Seconds(torch.device(given.device))
    turns = Turns(own, seconds, given.pairs)
    seconds.watch(own, "prune_now_", "event")
    seconds.watch(own.scores, "compute", "scores")
    seconds.watch(own, "look", "traces")
    for hook in HOOKS:
        seconds.watch(own, hook, "hooks")
    loader = DataLoader(Images(given.side), batch_size=given.batch)
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu" if given.device == "cpu" else "auto",
        devices=1,
        limit_train_batches=3 * length,
        limit_val_batches=1,
        val_check_interval=2 * length,
        num_sanity_val_steps=0,
        callbacks=[own, turns],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, loader, loader)
    return turns, seconds


def print_steps(found: dict[str, Turns]) -> None:
    """The share of a step that the callback takes."""
    print("| criterion | event | s of a step without | difference of a pair | hooks alone |")
    print("|---|---|---|---|---|")
    for criterion, turns in found.items():
        for phase in PHASES:
            pairs = list(turns.pairs(phase))
            without = spread([plain for plain, _, _ in pairs], ".3f")
            difference = spread([100 * (own - plain) / plain for plain, own, _ in pairs], "+.2f")
            alone = spread([100 * hooks / plain for plain, _, hooks in pairs], ".3f")
            print(f"| {criterion} | {phase} | {without} | {difference} % | {alone} % |")


def print_events(found: dict[str, Turns], seconds: dict[str, Seconds]) -> None:
    """Seconds of an event and of its parts, and how many steps they are worth."""
    parts = ("event", "scores", "select", "cut and certificate", "traces", "statistics anew")
    print(f"\n| criterion | {' | '.join(parts)} | event in steps of the dense network |\n|---|{'---|' * 7}")
    for criterion, turns in found.items():
        step = statistics.median(plain for plain, _, _ in turns.pairs("before"))
        times = seconds[criterion].of
        total = times["event"] + times["statistics anew"]
        row = " | ".join(f"{times[part]:.2f} s" for part in parts)
        print(f"| {criterion} | {row} | {total / step:.1f} |")


def main() -> None:
    """Prints the tables, and under what they were measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="within one operation on the CPU")
    parser.add_argument("--encoder", default="resnet34")
    parser.add_argument("--side", type=int, default=256, help="of an image")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=10, help="of steps, even, in each of the three phases")
    parser.add_argument("--criteria", nargs="+", default=["l2", "taylor"])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    turns, seconds = {}, {}
    select, operate, recalibrate = cutting.select, cutting.operate_, recovering.recalibrate_
    for criterion in given.criteria:
        cutting.select, cutting.operate_, recovering.recalibrate_ = select, operate, recalibrate
        watched = Seconds(torch.device(given.device))
        watched.watch(cutting, "select", "select")
        watched.watch(cutting, "operate_", "cut and certificate")
        watched.watch(recovering, "recalibrate_", "statistics anew")
        turns[criterion], seconds[criterion] = train(criterion, given)
        seconds[criterion].of.update(watched.of)
    print(f"\nUnet-{given.encoder}, {given.batch} images of {given.side} px, Adam: median (quartiles)\n")
    print_steps(turns)
    print_events(turns, seconds)
    words = " ".join(f"--{name} {value}" for name, value in vars(given).items() if name != "criteria")
    print(
        f"\n{device_name(torch.device(given.device))}, threads {given.threads}, torch {torch.__version__}, "
        f"Python {platform.python_version()}; python -m benchmarks.callback {words}"
    )


if __name__ == "__main__":
    main()
