"""Things that are chosen by name."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

from seg_pruning.surgery.errors import PruningError

T = TypeVar("T")


def choose(options: Mapping[str, T], name: str, *, kind: str) -> T:
    """The option called `name`.

    Raises:
        PruningError: There is none; the message lists what there is and the nearest name.

    Example:
        >>> choose({"l1": 1, "l2": 2}, "l2", kind="criterion")
        2
    """
    if name in options:
        return options[name]
    near = get_close_matches(str(name).lower(), options, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise PruningError(f"no {kind} is called {name!r}: choose one of {', '.join(options)}{hint}")
