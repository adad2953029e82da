"""Sets networks side by side on the test part of Kvasir-SEG and prints the table of the README.

    python benchmarks/kvasir.py ROOT NAME=FILE NAME=FILE ...

ROOT is the folder of Kvasir-SEG. The files are checkpoints, or ``pruned.safetensors`` of a run; the first is
the one that the others are compared with. Dice and IoU are means over the test images, with standard errors
over images; the difference to the first is paired by image. All networks are timed in one run, in turns: one
image, float32, one thread.
"""

import argparse
import platform
import sys
from pathlib import Path

import lightning as L
import numpy as np
import torch

import seg_pruning as sp
from seg_pruning.data import KvasirSEG
from seg_pruning.profiling import compare_latency
from seg_pruning.profiling.progress import progress_bar
from seg_pruning.tasks import SemanticSegmentation


def load(path: Path) -> SemanticSegmentation:
    """The task of a checkpoint or of a pruned network's file."""
    if path.suffix == ".ckpt":
        return SemanticSegmentation.load_from_checkpoint(path, map_location="cpu")
    task = SemanticSegmentation()
    sp.load_pruned_(task.network, path)
    return task


def scores(task: SemanticSegmentation, data: KvasirSEG) -> dict[str, np.ndarray]:
    """Dice and IoU of each test image, float32 inference."""
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.test(task, data, verbose=False)
    per_image = task.scores["test"].per_image()
    return {name: np.asarray(per_image[name]) for name in ("dice", "iou")}


def mean(values: np.ndarray, *, sign: str = "") -> str:
    """Mean and standard error."""
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():{sign}.3f} ({error:.3f})"


def main() -> None:
    """Prints the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("networks", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--image_size", type=int, default=128)
    given = parser.parse_args()
    files = dict(pair.split("=", 1) for pair in given.networks)
    data = KvasirSEG(given.root, image_size=given.image_size, batch_size=16, num_workers=0)
    tasks = {name: load(Path(file)) for name, file in files.items()}
    found = {name: scores(task, data) for name, task in tasks.items()}
    image = torch.randn(1, 3, given.image_size, given.image_size)
    networks = {name: task.network.float().eval() for name, task in tasks.items()}
    with progress_bar("latency") as progress:
        times = compare_latency(networks, image, runs=100, progress=progress)
    first = next(iter(found))
    print("| network | params | MACs | ms p50 / p95 | Dice | IoU | Dice, difference to the first |")
    print("|---|---|---|---|---|---|---|")
    for name, network in networks.items():
        cost, time = sp.cost(network, image), f"{times[name].p50_ms:.1f} / {times[name].p95_ms:.1f}"
        gap = "" if name == first else mean(found[name]["dice"] - found[first]["dice"], sign="+")
        print(
            f"| {name} | {cost.params / 1e6:.2f} M | {cost.macs / 1e6:,.0f} M | {time} "
            f"| {mean(found[name]['dice'])} | {mean(found[name]['iou'])} | {gap} |"
        )
    print(
        f"\n{len(found[first]['dice'])} test images, {times[first].device_name}, torch {torch.__version__}, "
        f"Python {platform.python_version()}; {' '.join(sys.argv[:2])}"
    )


if __name__ == "__main__":
    main()
