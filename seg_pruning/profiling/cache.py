"""Measured times of layers on disk: a file for each device, count of threads, dtype and torch version."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from seg_pruning.surgery.atomic import replace_text

Times: TypeAlias = dict[str, dict[str, float]]
"""For each layer, by its key, milliseconds at each pair of lengths of its weight, such as "64,32"."""


class LatencyCache:
    """The times that were measured under some conditions.

    Args:
        folder: where the file is; it is made with the first times.
        conditions: what times depend on beside the layer.
    """

    def __init__(self, folder: Path, conditions: Mapping[str, str | int]) -> None:
        self.conditions = dict(conditions)
        name = hashlib.sha256(json.dumps(self.conditions, sort_keys=True).encode()).hexdigest()[:16]
        self.path = folder / f"{name}.json"

    def load(self) -> Times:
        """The times so far; none, with a warning, where the file cannot be read."""
        if not self.path.exists():
            return {}
        try:
            return _checked(json.loads(self.path.read_text()), self.conditions)
        except (OSError, ValueError) as error:
            warnings.warn(
                f"the latency cache {self.path} cannot be read and is measured anew: {error}", stacklevel=2
            )
            return {}

    def add(self, times: Times) -> None:
        """Writes more times beside those that are there; readers see the old file or the new one, whole.

        A folder that cannot be written to is a warning: the times are only measured again next time.
        """
        if not times:
            return
        try:
            with warnings.catch_warnings(action="ignore"):  # `load` has said it
                merged = self.load()
            for key, found in times.items():
                merged[key] = {**merged.get(key, {}), **found}
            self._write(merged)
        except OSError as error:
            warnings.warn(f"the latency cache {self.path} cannot be written: {error}", stacklevel=2)

    def _write(self, times: Times) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(self.path, json.dumps({"conditions": self.conditions, "layers": times}))


def _checked(data: object, conditions: Mapping[str, str | int]) -> Times:
    if not isinstance(data, dict) or data.get("conditions") != conditions:
        raise ValueError("it is of other conditions")
    layers = data.get("layers")
    if not isinstance(layers, dict) or not all(isinstance(found, dict) for found in layers.values()):
        raise ValueError("it holds no layers")
    for found in layers.values():
        if not all(type(ms) in (int, float) and 0 <= ms < float("inf") for ms in found.values()):
            raise ValueError("a time is no number of milliseconds")
    return layers
