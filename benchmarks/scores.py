"""What scores, the selection and rounded widths cost or spare, on networks with random weights.

    python -m benchmarks.scores

Prints three tables in Markdown:

- the share of a training step that gathering Taylor scores takes: steps with and without in turns;
- seconds of a selection for Unet-resnet50, at several budgets;
- latency of widths in multiples of 8 against any widths of the same MACs, float32, in turns.
"""

import argparse
import copy
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn

import seg_pruning as sp
from seg_pruning.profiling import compare_latency
from seg_pruning.profiling.clock import DeviceClock
from seg_pruning.profiling.inference import device_name
from seg_pruning.pruning.budgets import Budget, amounts
from seg_pruning.pruning.score import RunningScores, parameters_of, score
from seg_pruning.pruning.selection import Selection, select
from seg_pruning.surgery.trial import trace
from seg_pruning.tasks import SemanticSegmentation

BUDGETS: tuple[dict[str, float], ...] = (
    *({name: share} for name in ("params", "macs") for share in (0.5, 0.3, 0.1, 0.05)),
    {"channels": 0.5},
    {"memory": 0.6},
    {"params": 0.3, "macs": 0.3, "memory": 0.8},
)
SELECTIONS = {
    "global": Selection(),
    "global, multiples of 8": Selection(round_to=8),
    "global, per MACs": Selection(per="macs"),
    "local": Selection(scope="local"),
}


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that `work` takes on `device`."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def wait(device: torch.device) -> None:
    """Until the device has done all that it was asked."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def spread(values: list[float], form: str) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def image(device: torch.device, batch: int = 1) -> Tensor:
    """Noise at the size of the published runs."""
    return torch.randn(batch, 3, 128, 128, generator=torch.Generator().manual_seed(0)).to(device)


def unet(encoder: str, device: torch.device) -> SemanticSegmentation:
    """The task, with random weights."""
    torch.manual_seed(0)
    return SemanticSegmentation("unet", encoder=encoder).to(device)


class Training:
    """Steps of Unet-resnet18 on one batch of 16 images, with and without gathering Taylor scores."""

    def __init__(self, device: torch.device, *, half: bool) -> None:
        self.device = device
        self.task = unet("resnet18", device).train()
        self.images = image(device, 16)
        self.masks = (self.images[:, 0] > 0).long()
        self.optimizer = torch.optim.AdamW(self.task.parameters())
        self.context = torch.autocast(device.type, torch.bfloat16) if half else nullcontext()
        self.graph = trace(self.task.network, image(device))
        self.weights = parameters_of(self.task.network)
        self.scores = RunningScores("taylor")
        self.gathering = 0.0

    def step(self, *, gather: bool) -> None:
        """One step of training; `gathering` is then how many seconds that took of it."""
        self.optimizer.zero_grad()
        with self.context:
            loss = self.task.loss(self.task.network(self.images), self.masks)
        loss.backward()
        if gather:
            self.gathering = timed(lambda: self.scores.update(self.graph, self.weights), self.device)
        self.optimizer.step()

    def pairs(self, count: int) -> Iterator[tuple[float, float, float]]:
        """Seconds of a step without, of one with, and of gathering alone; every other pair backwards."""
        for gather in (True, False) * 3:  # to warm up
            self.step(gather=gather)
        for done in range(count):
            order = (False, True) if done % 2 else (True, False)
            seconds = {gather: timed(partial(self.step, gather=gather), self.device) for gather in order}
            yield seconds[False], seconds[True], self.gathering


def print_gathering(device: torch.device, pairs: int) -> None:
    """The share of a step that gathering scores takes."""
    print(f"\nUnet-resnet18, 16 images of 128 px, AdamW, {pairs} pairs of steps: median (quartiles)\n")
    print("| precision | ms of a step without | difference of a pair | gathering alone |")
    print("|---|---|---|---|")
    for half in (True, False):
        found = list(Training(device, half=half).pairs(pairs))
        without = spread([1e3 * plain for plain, _, _ in found], ".1f")
        difference = spread([100 * (full - plain) / plain for plain, full, _ in found], "+.2f")
        alone = spread([100 * took / plain for plain, _, took in found], ".2f")
        print(f"| {'bf16 autocast' if half else 'float32'} | {without} | {difference} % | {alone} % |")


def print_selections(runs: int) -> None:
    """Seconds of a selection, which runs on the CPU."""
    clock = DeviceClock(torch.device("cpu"), threads=torch.get_num_threads(), runs=runs, budget_ms=60_000)
    network = unet("resnet50", clock.device).network
    graph = trace(network, image(clock.device))
    scores, dense = score(graph, network, "l2"), amounts(graph)
    print(f"\nUnet-resnet50, {len(graph.prunable)} groups, L2 scores: seconds, median of {runs} in turns\n")
    print(f"| budget | {' | '.join(SELECTIONS)} |")
    print(f"|---|{'---|' * len(SELECTIONS)}")
    for budget in BUDGETS:
        limit = Budget.of(budget).limit(dense)
        times = clock.milliseconds([partial(select, graph, scores, limit, o) for o in SELECTIONS.values()])
        name = ", ".join(f"{key} {share:.0%}".replace("%", " %") for key, share in budget.items())
        print(f"| {name} | {' | '.join(f'{ms / 1e3:.3f}' for ms in times)} |")


def rounded_and_not(dense: nn.Module, example: Tensor, share: float) -> dict[str, nn.Module]:
    """The network cut to a share of its MACs in multiples of 8, and to the MACs of that in any widths."""
    eights, ones = copy.deepcopy(dense), copy.deepcopy(dense)
    macs = sp.prune_(eights, example, budget={"macs": share}, round_to=8).after.macs
    sp.prune_(ones, example, budget={"macs": macs}, round_to=1)
    return {"8": eights, "1": ones}


def print_widths(device: torch.device, runs: int) -> None:
    """Latency of rounded widths against others of the same MACs."""
    example, dense = image(device), unet("resnet18", device).network.eval()
    print(f"\nUnet-resnet18, one image of 128 px, float32, L2 scores, {runs} runs in turns\n")
    print("| MACs kept | multiples of | MACs | ms p50 / p95 | time of multiples of 8 / of 1 |")
    print("|---|---|---|---|---|")
    for share in (0.5, 0.3, 0.1, 0.05):
        networks = rounded_and_not(dense, example, share)
        times = compare_latency(networks, example, threads=torch.get_num_threads(), runs=runs)
        ratio = times["8"].p50_ms / times["1"].p50_ms
        for multiple, network in networks.items():
            macs, found = sp.cost(network, example).macs, times[multiple]
            end = f"{ratio:.3f}" if multiple == "8" else ""
            print(
                f"| {share:.0%} | {multiple} | {macs / 1e6:,.1f} M "
                f"| {found.p50_ms:.2f} / {found.p95_ms:.2f} | {end} |".replace("% |", " % |")
            )


def main() -> None:
    """Prints the tables, and under what they were measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="within one operation on the CPU")
    parser.add_argument("--pairs", type=int, default=40, help="of training steps")
    parser.add_argument("--runs", type=int, default=100, help="of each network whose latency is measured")
    parser.add_argument("--repeats", type=int, default=5, help="of each selection")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print_gathering(given.device, given.pairs)
    print_selections(given.repeats)
    print_widths(given.device, given.runs)
    print(
        f"\n{device_name(given.device)}, {torch.backends.cpu.get_cpu_capability()}, threads {given.threads}, "
        f"torch {torch.__version__}, Python {platform.python_version()}; python -m benchmarks.scores "
        f"--device {given.device} --threads {given.threads} --pairs {given.pairs} --runs {given.runs} "
        f"--repeats {given.repeats}"
    )


if __name__ == "__main__":
    main()
