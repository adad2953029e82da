"""Trainings on as many ranks as there are; each writes what it ended with: python -m ... FOLDER SCENARIO ...

Every rank is a process that was started with torchrun's variables.
"""

import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from seg_pruning.callbacks import Distillation, Recovery, Schedule, Scoring
from seg_pruning.pruning import criteria
from seg_pruning.surgery.note import structure_of
from tests.callbacks.modules import Stranger, pruning, trainer_in


class Plain(Stranger):
    """Without BatchNorm, whose statistics are of each rank's images, and without noise."""

    def __init__(self) -> None:
        super().__init__("sgd")
        norms = [name for name, part in self.net.named_modules() if isinstance(part, nn.BatchNorm2d)]
        for name in norms:
            parent, _, last = name.rpartition(".")
            setattr(self.net.get_submodule(parent), last, nn.Identity())

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        # Each rank sees a loss of its own, which nobody reduces.
        self.log("val/loss", float(self.global_rank) + self.training_step(batch, batch_idx))


class Breaks(Plain):
    """Rank 1 alone cannot be traced any more once it has trained."""

    def on_train_epoch_start(self) -> None:
        if self.global_rank == 1 and self.current_epoch == 0:
            self.net.head.register_forward_pre_hook(self._fail)

    def _fail(self, *_: object) -> None:
        if not torch.is_grad_enabled() and not self.trainer.validating:
            raise RuntimeError("only here")


def loss_of(output: object, batch: object) -> Tensor:
    assert isinstance(output, Tensor)
    assert isinstance(batch, list | tuple)
    return nn.functional.binary_cross_entropy_with_logits(output, batch[1])


SCENARIOS: dict[str, tuple[type[Stranger], dict[str, Any], dict[str, Any]]] = {
    "taylor": (Plain, {"criterion": "taylor"}, {}),
    "accumulated": (Plain, {"criterion": "taylor"}, {"accumulate_grad_batches": 2}),
    "pass": (
        Plain,
        {
            "criterion": Scoring(criteria.Taylor(of="activation", form="abs"), batches=2, loss=loss_of),
            "schedule": Schedule("linear", recovery=Recovery(compensate=2)),
        },
        {},
    ),
    "floor": (Plain, {"criterion": "taylor", "budget": {"params": 0.5, "min": {"val/loss": 0.1}}}, {}),
    "distilled": (Plain, {"criterion": "taylor"}, {}),
    "breaks": (Breaks, {"criterion": "l2"}, {}),
    "norms": (Stranger, {"criterion": "taylor"}, {}),
    "resumed": (Plain, {"criterion": "taylor"}, {}),
}


def loader(rank: int, ranks: int) -> DataLoader:
    """The same global batches of four images, however many ranks share them; the last one is smaller."""
    images = torch.rand(14, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pairs = TensorDataset(images, (images[:, :1] > 0.5).float())
    share = DistributedSampler(pairs, num_replicas=ranks, rank=rank, shuffle=False)
    return DataLoader(pairs, batch_size=4 // ranks, sampler=share)


def train(folder: Path, scenario: str, *, rank: int = 0, ranks: int = 1) -> dict[str, object]:
    """One training, and what it came to."""
    make, options, settings = SCENARIOS[scenario]
    L.seed_everything(0, verbose=False)
    module, run = make(), pruning(**options)
    L.seed_everything(1, verbose=False)
    place = folder / scenario
    others = [Distillation()] if scenario == "distilled" else []
    layout = {} if ranks == 1 else {"devices": 1, "num_nodes": ranks, "strategy": "ddp"}
    trainer = trainer_in(place, [run, *others], **{**settings, **layout})
    start = folder / "taylor" / "checkpoints" / "epoch=1.ckpt" if scenario == "resumed" else None
    try:
        trainer.fit(module, loader(rank, ranks), loader(rank, ranks), ckpt_path=start)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    structure = structure_of(module)
    return {
        "structure": structure and structure.to_dict(),
        "weights": dict(module.state_dict()),
        "optimizer": trainer.optimizers[0].state_dict()["state"],
        "files": sorted(str(file.relative_to(place)) for file in place.rglob("*.ckpt")),
        "points": len(run.points),
    }


def main(folder: Path, rank: int, ranks: int, scenarios: list[str]) -> None:
    """All scenarios, one after the other."""
    found = {scenario: train(folder, scenario, rank=rank, ranks=ranks) for scenario in scenarios}
    torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
