"""Sensitivity as rows: on disk as soon as each is measured, and read as limits for the selection.

Two files: the rows as CSV, and beside it, with the suffix ``.json``, what they are of.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

from seg_pruning.surgery.atomic import replace_text
from seg_pruning.surgery.errors import PruningError

About: TypeAlias = Mapping[str, str | int | float | bool | None]
"""What rows are of, by name: the network, the criterion, the metric, the data."""

VERSION = 1


@dataclass(frozen=True)
class SensitivityRow:
    """One group cut to one width, all others whole.

    Attributes:
        group: its name.
        size: its channels before the cut.
        ratio: share of them asked to be removed, in (0, 1).
        kept: channels that stayed: no more are removed than asked, as many of each block, and 1 stays.
        params: parameters of the network so cut.
        macs: multiply-accumulates of one pass of the example inputs so cut.
        metric: the metric of the network so cut.
        drop: by how much it is worse than that of the whole network; below 0 where it is better.
    """

    group: str
    size: int
    ratio: float
    kept: int
    params: int
    macs: int
    metric: float
    drop: float


_COLUMNS = tuple(f.name for f in fields(SensitivityRow))


class SensitivityRecord:
    """The rows of one network in a CSV file that outlives an interruption.

    Each row is on disk before the next is measured, and the file is whole at every moment: it is replaced,
    never written into.

    Args:
        path: the CSV file, which need not exist; its folder is made with the first row.
        about: what is measured and on what, such as ``{"metric": "val/dice", "data": digest}``. `sensitivity`
            adds the network, the criterion and the mode.

    Raises:
        PruningError: the path is that of the file beside it.
    """

    def __init__(self, path: str | Path, about: About) -> None:
        self.path = Path(path)
        self.about = dict(about)
        self.rows: tuple[SensitivityRow, ...] = ()
        self.dense: float | None = None
        if self.path.suffix == ".json":
            raise PruningError(
                f"{self.path}: rows are CSV, and what they are of is written to the same name with .json; "
                "choose another suffix"
            )

    @property
    def identity_path(self) -> Path:
        """The file that says what the rows are of."""
        return self.path.with_suffix(".json")

    def open(self, identity: About) -> None:
        """Reads what an earlier run left, if it is of the same.

        Args:
            identity: of the network, the criterion and the mode, beside what the constructor was told.

        Raises:
            PruningError: the file is of something else, which the message names, or is damaged.
        """
        self.about = {**identity, **self.about}
        if not self.path.exists():
            return
        rows = read_sensitivity(self.path)
        stored = _identity(self.identity_path)
        _check_same(self.path, stored["about"], self.about)
        self.rows, self.dense = rows, stored["dense"]

    def add(self, row: SensitivityRow, *, dense: float) -> None:
        """Writes a row, unless it is there.

        Args:
            row: what was measured.
            dense: the metric of the whole network, the same each time.
        """
        if any((row.group, row.ratio) == (old.group, old.ratio) for old in self.rows):
            return
        if not self.rows:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            identity = {"version": VERSION, "about": self.about, "dense": dense}
            replace_text(self.identity_path, json.dumps(identity, indent=2))
        self.dense = dense
        self.rows = (*self.rows, row)
        replace_text(self.path, _csv(self.rows))


def read_sensitivity(path: str | Path) -> tuple[SensitivityRow, ...]:
    """The rows of a CSV file that `sensitivity` or the command line wrote.

    Raises:
        PruningError: there is no such file, or it holds something else; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise PruningError(f"there is no file {path}; `seg-pruning sensitivity` writes one")
    with path.open(newline="", encoding="utf-8") as stream:
        lines = list(csv.reader(stream))
    if not lines or tuple(lines[0]) != _COLUMNS:
        raise PruningError(f"{path} is no table of sensitivity: its first line is not {','.join(_COLUMNS)}")
    return tuple(_row(path, number, line) for number, line in enumerate(lines[1:], start=2))


def tolerated_floors(rows: Iterable[SensitivityRow] | str | Path, *, max_drop: float) -> dict[str, float]:
    """The fraction of each group's width to keep so that cutting it alone costs no more than `max_drop`.

    Of the widths that were measured the smallest that, with all wider ones, is tolerated; 1.0 where none is.
    Nothing is interpolated, and several groups cut together lose more than any one of them: these are limits
    for a selection, no promise about the network that it gives.

    Args:
        rows: what was measured, or the CSV file that holds it.
        max_drop: how much worse the metric may get, 0 or more, in the metric's units.

    Returns:
        Group name -> fraction kept in (0, 1], relative to the width that was measured.

    Raises:
        PruningError: `max_drop` is negative or not finite, or the file cannot be read.

    Example:
        >>> half = SensitivityRow("conv", 8, 0.5, 4, 90, 900, metric=0.79, drop=0.01)
        >>> most = SensitivityRow("conv", 8, 0.75, 2, 60, 600, metric=0.30, drop=0.50)
        >>> tolerated_floors([half, most], max_drop=0.02)
        {'conv': 0.5}
    """
    if not (math.isfinite(max_drop) and max_drop >= 0):
        raise PruningError(
            f"expected max_drop to be 0 or more, in the units of the metric, but got {max_drop!r}"
        )
    measured = read_sensitivity(rows) if isinstance(rows, str | Path) else tuple(rows)
    floors = {row.group: 1.0 for row in measured}
    refused: set[str] = set()
    for row in sorted(measured, key=lambda row: -row.kept):
        if row.group in refused or not row.drop <= max_drop:  # a drop that is nan is not tolerated
            refused.add(row.group)
        else:
            floors[row.group] = row.kept / row.size
    return floors


def _csv(rows: Iterable[SensitivityRow]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(astuple(row) for row in rows)
    return text.getvalue()


def _row(path: Path, number: int, line: list[str]) -> SensitivityRow:
    try:
        group, size, ratio, kept, params, macs, metric, drop = line
        return SensitivityRow(
            group, int(size), float(ratio), int(kept), int(params), int(macs), float(metric), float(drop)
        )
    except ValueError as error:
        raise PruningError(
            f"{path}, line {number} is no row of sensitivity ({error}): {','.join(line)[:200]}. "
            "Remove the line to have it measured again"
        ) from error


def _identity(path: Path) -> dict[str, Any]:
    """What the rows beside `path` are of."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["version"] != VERSION:
            raise ValueError(f"version {stored['version']}, where this release reads {VERSION}")
        return {"about": dict(stored["about"]), "dense": float(stored["dense"])}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PruningError(
            f"{path} does not say what the rows beside it are of ({type(error).__name__}: {error}); "
            "choose another folder, or remove both files to measure anew"
        ) from error


def _check_same(path: Path, stored: Mapping[str, Any], wanted: About) -> None:
    other = [name for name in {**stored, **wanted} if stored.get(name) != wanted.get(name)]
    if other:
        told = "; ".join(f"{name}: {stored.get(name)} there, {wanted.get(name)} here" for name in other[:10])
        raise PruningError(
            f"{path} holds the sensitivity of something else ({told}). Choose another folder or file, or "
            "remove it and the .json beside it to measure anew"
        )
