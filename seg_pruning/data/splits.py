"""Which samples train, which choose, and which are only for the end: pure functions of names."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from seg_pruning.data.errors import refuse
from seg_pruning.data.samples import SUFFIXES

# Fixed, and not a run's seed: runs with other seeds are compared on the same images.
SPLIT_SEED = 0


@dataclass(frozen=True)
class Split:
    """The names of the samples of each part."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def check(self, names: Iterable[str], *, source: object) -> None:
        """Refuse a split that does not fit the samples there are.

        Args:
            names: The samples there are.
            source: Where the split comes from, for the message.

        Raises:
            ValueError: A part is empty, names absent samples, or shares a sample with another part.
        """
        present = frozenset(names)
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        for part, members in parts.items():
            if not members:
                raise ValueError(
                    f"The {part} part of {source} is empty. Each part needs at least one sample."
                )
            absent = [name for name in members if name not in present]
            refuse(
                f"samples of the {part} part of {source} are absent",
                absent,
                f"Add their files, or take their names out; {len(present)} samples are there.",
            )
        counts = Counter(name for members in parts.values() for name in members)
        shared = [name for name, count in counts.items() if count > 1]
        refuse(f"samples are named more than once in {source}", shared, "Keep each in one part only.")


def carve(names: Iterable[str], fraction: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names that remain and those carved out at random, both sorted; any order of `names` gives the same.

    Args:
        names: What to carve from, at least two names.
        fraction: How much is carved out, in (0, 1), rounded to whole names, at least one, and at least one
            remains.

    Raises:
        ValueError: A fraction outside (0, 1), or fewer than two names.

    Example:
        >>> carve("abcde", 0.4)
        (('a', 'b', 'd'), ('c', 'e'))
    """
    ordered = sorted(names)
    if not 0 < fraction < 1:
        raise ValueError(f"Expected a fraction in (0, 1), but got {fraction}.")
    if len(ordered) < 2:
        raise ValueError(
            f"Cannot split {len(ordered)} sample(s) into two parts. Add samples, or give the parts folders."
        )
    count = min(max(round(len(ordered) * fraction), 1), len(ordered) - 1)
    chosen = set(np.random.default_rng(SPLIT_SEED).permutation(len(ordered))[:count].tolist())
    rest = tuple(name for index, name in enumerate(ordered) if index not in chosen)
    return rest, tuple(ordered[index] for index in sorted(chosen))


def read_names(path: Path) -> tuple[str, ...]:
    """The names in a text file, one a line; blank lines are skipped and suffixes of images are dropped.

    Raises:
        ValueError: The file holds no name.
    """
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    names = tuple(_without_suffix(line) for line in lines if line)
    if not names:
        raise ValueError(f"{path} names no sample. Write one name a line, without suffix.")
    return names


def _without_suffix(name: str) -> str:
    path = Path(name)
    return path.stem if path.suffix.lower() in SUFFIXES else name
