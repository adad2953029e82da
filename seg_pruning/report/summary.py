"""Before and after pruning: tested, timed in turns, written to the run folder and shown as one table."""

import copy
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import lightning as L
import torch
from rich.console import Console
from torch import nn

from seg_pruning import tracking
from seg_pruning.profiling import Latency, compare_latency, comparison, cost, flat, table
from seg_pruning.profiling.progress import progress_bar
from seg_pruning.pruning.budgets import Budget
from seg_pruning.report.spending import spending
from seg_pruning.surgery.atomic import replace_text
from seg_pruning.surgery.files import save_pruned
from seg_pruning.surgery.inputs import Inputs
from seg_pruning.tasks import BaseTask


@dataclass(frozen=True)
class Summary:
    """What `summarise` found.

    Attributes:
        compared: values of the dense and the pruned network and their ratios, as in ``summary.json``.
        title: what was compared, in words.
    """

    compared: Mapping[str, Mapping[str, float | None]]
    title: str

    def show(self, console: Console | None = None) -> None:
        """Prints the table."""
        (console or Console()).print(table(self.compared, title=self.title))


def summarise(
    trainer: L.Trainer,
    module: L.LightningModule,
    *,
    checkpoints: Mapping[str, str | Path | None],
    inputs: Inputs,
    folder: Path,
    datamodule: L.LightningDataModule | None = None,
    budget: Budget | None = None,
) -> Summary | None:
    """Tests and times the network of each checkpoint; writes ``summary.json`` and ``pruned.safetensors``.

    Latency is of one image, on one thread of a CPU or on the module's device, the two networks in turns. All
    ranks of a distributed training test; the first of them does the rest, and the others get None.

    Args:
        trainer: the trainer of the finished fit; its loggers get the numbers as ``final/...``.
        module: the module that was trained; it ends with the weights of the pruned network.
        checkpoints: the files of ``dense``, where it was kept, and ``pruned``, in this order; None for the
            weights of now.
        inputs: what the module is called with.
        folder: the run folder.
        datamodule: the data to test on; without test data there are costs only.
        budget: what was asked; where the dense network was kept, the file says of each amount in it what was
            asked, predicted and got.
    """
    rows: dict[str, dict[str, float]] = {}
    networks: dict[str, nn.Module] = {}
    for name, path in checkpoints.items():
        rows[name] = _test(trainer, module, datamodule, path)
        networks[name] = _network(module)
    if not trainer.is_global_zero:
        return None
    example = inputs.to(device="cpu")
    with progress_bar("latency") as progress:
        times = compare_latency(networks, example, progress=progress)
    for name, network in networks.items():
        rows[name] = flat(cost(network, example)) | _milliseconds(times[name]) | rows[name]
    compared = comparison(rows.get("dense", {}), rows["pruned"])
    spent = (
        {}
        if budget is None or "dense" not in networks
        else spending(
            budget, networks, example, milliseconds={name: time.p50_ms for name, time in times.items()}
        )
    )
    said = {**compared, "budget": spent, "conditions": _conditions(times)}
    replace_text(folder / "summary.json", json.dumps(said, indent=2, allow_nan=False))
    save_pruned(networks["pruned"], folder / "pruned.safetensors")
    tracking.log_final(trainer, compared)
    return Summary(compared, f"Before and after pruning ({folder})")


def _test(
    trainer: L.Trainer,
    module: L.LightningModule,
    datamodule: L.LightningDataModule | None,
    path: str | Path | None,
) -> dict[str, float]:
    found = trainer.test(module, datamodule=datamodule, ckpt_path=path, verbose=False)
    return {name: float(value) for name, value in (found[0] if found else {}).items()}


def _network(module: L.LightningModule) -> nn.Module:
    """A copy of what was pruned, on the CPU: the network of our own tasks, the whole module of others."""
    return _copied(module.network if isinstance(module, BaseTask) else module)


def _copied(module: nn.Module) -> nn.Module:
    trainer = vars(module).pop("_trainer", None)  # a copy of the module need not copy all the training
    try:
        return copy.deepcopy(module).cpu().eval()
    finally:
        if trainer is not None:
            vars(module)["_trainer"] = trainer


def _milliseconds(time: Latency) -> dict[str, float]:
    return {"latency_p50_ms": time.p50_ms, "latency_p95_ms": time.p95_ms}


def _conditions(times: Mapping[str, Latency]) -> dict[str, object]:
    """Under what the numbers were measured."""
    return {
        "latency": {name: asdict(time) for name, time in times.items()},
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": L.__version__,
        "training_threads": torch.get_num_threads(),
    }
