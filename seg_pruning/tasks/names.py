"""One error for every name that does not exist: the value, the nearest legal ones, how to list them all."""

from collections.abc import Collection
from difflib import get_close_matches

from seg_pruning.surgery.errors import PruningError


def check_name(name: str, legal: Collection[str], *, what: str, listing: str) -> None:
    """Passes when `name` is one of `legal`.

    Args:
        name: The name that the user gave.
        legal: Every name that exists.
        what: What the name names, for the message.
        listing: How the user lists the legal names; said when they are too many to be printed.

    Raises:
        PruningError: If the name does not exist; tells up to five nearest ones.

    Example:
        >>> check_name("unet", ["fpn", "unet"], what="architecture", listing="")
    """
    if name in legal:
        return
    nearest = get_close_matches(name, legal, n=5, cutoff=0.5)
    near = f" Nearest: {', '.join(nearest)}." if nearest else ""
    known = (
        f"Legal: {', '.join(sorted(legal))}." if len(legal) <= 20 else f"There are {len(legal)}: {listing}."
    )
    raise PruningError(f"{name!r} is no {what}.{near} {known}")
