"""Peak memory of a piece of work, above what was held before: resident memory, as Linux counts it."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

_MMAP_THRESHOLD = -3  # of mallopt(3)
_STATUS = Path("/proc/self/status")


def peak_above(work: Callable[[], object]) -> int:
    """Bytes by which resident memory rose at most while `work` ran. Linux with glibc.

    glibc is told to map each larger block on its own, so that what was freed before is not used again unseen.
    """
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(_MMAP_THRESHOLD, 1 << 16)
    gc.collect()
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew at what is held now
    before = _kib("VmRSS")
    work()
    return (_kib("VmHWM") - before) * 1024


def _kib(key: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1])
