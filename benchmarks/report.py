"""The page of the surgery benchmark: what was measured, as Markdown."""

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

from benchmarks.measure import DEFAULTS, EXACT, NO_ATTENTION, NUM_HEADS, OURS, Found
from tests.zoo.networks import Case

Results = Mapping[Case, Mapping[str, Found]]

PACKAGES = ("torch", "segmentation-models-pytorch", "timm", "torch-pruning")
_HEADER = """# Benchmarks

- `surgery.py`: what a cut costs in time and memory, and what Torch-Pruning makes of the same networks; below.
- `kvasir.py`: accuracy, size and latency of networks trained on Kvasir-SEG; its table is in the project's
  README.
- [`recovery/`](recovery/README.md): criteria and recoveries from the same dense networks, with their controls
  and beside Torch-Pruning, on Kvasir-SEG.
- `scores.py`: which share of a training step gathering Taylor scores takes, how long a selection takes, and
  what widths in multiples of 8 spare at the same MACs.

## Surgery
"""
_TERMS = f"""
- Each network has a process of its own, with a limit of time. Half of each group is cut.
- *Time*: for trace, plan, cut and certificate; of Torch-Pruning for its graph and its cut, which it does not
  check. In brackets in forward passes of the dense network on the same image.
- *Left*: share of the parameters that run which is left. *Skipped*: share in tensors that kept their shape.
  *Pinned*: share that no plan can remove.
- *Exact*: the output differs from the masked original's by at most {EXACT:g} of its largest value. The tests
  build the masked original from what is left, for both tools alike; norms over channels and the scale of
  attention are of the kept channels. Where it cannot be built, running counts as exact.
- *Memory*: peak of a certified cut above the network, in sizes of the network, as the system counts resident
  memory; in brackets that of a forward pass alone.
- *Defaults*: `MagnitudePruner`, the heads ignored by hand. *Best*: the best of the defaults, of `num_heads`
  with attention not fused, as in its example for timm, and of all attention ignored.
"""
_SUMS = """| | networks | run | exact | left, median | skipped, median | time, median | slowest |
|---|---|---|---|---|---|---|---|"""
_COLUMNS = (
    *("network", "px", "params", "forward", "time", "left", "pinned", "error", "memory"),
    *("defaults: left, skipped, time", "best: left, skipped, time"),
)


def page(results: Results, command: str) -> str:
    """The whole of `benchmarks/README.md`.

    Args:
        results: for each network what each tool made of it; without a tool's entry it was not tried.
        command: what was called.
    """
    return "\n".join((_HEADER, _setting(command), _TERMS, *_sums(results), "", *_rows(results), ""))


def best(found: Mapping[str, Found]) -> Found | None:
    """The best that Torch-Pruning reached at any setting: exact, else running; then with the fewest left."""
    theirs = [found[tool] for tool in (DEFAULTS, NUM_HEADS, NO_ATTENTION) if tool in found]
    return min(theirs, key=lambda f: (bool(f.problem), not exact(f), f.kept), default=None)


def exact(found: Found) -> bool:
    """Whether the pruned network answers like the masked original."""
    return not found.problem and (found.error is None or found.error <= EXACT)


def _setting(command: str) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"`{command}`: {versions}, Python {platform.python_version()}, {_processor()},\n"
        "one thread, float32, random weights, one image of 256 px (or the size that the network is made for)."
    )


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine()
    )


def _sums(results: Results) -> list[str]:
    tools: dict[str, Callable[[Mapping[str, Found]], Found | None]] = {
        "seg_pruning": lambda found: found.get(OURS),
        "Torch-Pruning, defaults": lambda found: found.get(DEFAULTS),
        "Torch-Pruning, best": best,
    }
    lines = [_SUMS]
    for name, choose in tools.items():
        tried = [found for found in map(choose, results.values()) if found is not None]
        lines.append(f"| {name} | {len(tried)} | {_sum(tried)} |")
    ours = [found[OURS] for found in results.values() if OURS in found and not found[OURS].problem]
    return [*lines, "", *_facts(ours)]


def _sum(tried: Sequence[Found]) -> str:
    ran = [found for found in tried if not found.problem]
    if not ran:
        return "0 | 0 | | | | "
    forwards = median(found.seconds / found.forward_s for found in ran)
    return (
        f"{len(ran)} | {sum(map(exact, ran))} | {median(f.kept for f in ran):.0%} "
        f"| {median(f.skipped for f in ran):.1%} | {forwards:.1f} forward passes "
        f"| {max(f.seconds for f in ran):.1f} s"
    )


def _facts(ours: Sequence[Found]) -> list[str]:
    if not ours:
        return []
    pinned = [found.pinned or 0.0 for found in ours]
    memory = [found.memory for found in ours if found.memory is not None]
    forwards = [forward / size for forward, _, size in memory]
    cuts = [cut / size for _, cut, size in memory]
    return [
        f"seg_pruning pins {median(pinned):.1%} of the parameters in the median, {max(pinned):.1%} at most.",
        f"Peak memory, in sizes of the network: median cut {median(cuts):.1f}, largest {max(cuts):.1f};",
        f"of a forward pass alone {median(forwards):.1f} and {max(forwards):.1f}.",
        f"{sum(cut <= 2 for cut in cuts)} of {len(cuts)} cuts stay within two sizes.",
    ]


def _rows(results: Results) -> list[str]:
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}"]
    for case, found in results.items():
        ours = found.get(OURS, Found(problem="not tried"))
        theirs = (found.get(DEFAULTS), best(found))
        lines.append(f"| {case} | {_ours(ours)} | {' | '.join(_theirs(f) for f in theirs)} |")
    return lines


def _ours(found: Found) -> str:
    if found.problem:
        return f" | | | {short(found.problem)} | | | | "
    error = "" if found.error is None else f"{found.error:.0e}"
    memory = ""
    if found.memory is not None:
        forward, cut, size = found.memory
        memory = f"{cut / size:.1f} ({forward / size:.1f})"
    return (
        f"{found.side} | {found.params / 1e6:.1f} M | {found.forward_s * 1e3:.0f} ms | {_time(found)} "
        f"| {found.kept:.0%} | {found.pinned or 0.0:.1%} | {error} | {memory}"
    )


def _theirs(found: Found | None) -> str:
    if found is None:
        return ""
    if found.problem:
        return f"**fails**: {short(found.problem)}"
    wrong = "" if exact(found) else f"**not exact** ({found.error:.0e}): "
    return f"{wrong}{found.kept:.0%}, {found.skipped:.0%}, {_time(found)}"


def _time(found: Found) -> str:
    return f"{found.seconds:.1f} s ({found.seconds / found.forward_s:.0f})"


def short(text: str) -> str:
    """One line that cannot break the table."""
    line = " ".join(text.split()).replace("|", "/")
    return line if len(line) <= 60 else f"{line[:60]}…"
