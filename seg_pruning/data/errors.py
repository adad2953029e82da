"""Messages about data that the user can mend: which files, what is legal, and what to do."""

from collections.abc import Iterable, Sequence

SHOWN = 10


def listed(items: Iterable[object]) -> str:
    """The first ten items and how many more there are.

    Example:
        >>> listed(range(12))
        '0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more'
    """
    texts = [str(item) for item in items]
    more = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def refuse(what: str, offenders: Sequence[object], remedy: str) -> None:
    """Raise one error about all offenders; none is no error.

    Args:
        what: The fault, after the number of offenders: "images without a mask".
        offenders: The files or names at fault.
        remedy: The legal choice and what to do.

    Raises:
        ValueError: There is an offender.

    Example:
        >>> refuse("images without a mask", ["a.jpg"], "Add the masks.")
        Traceback (most recent call last):
        ValueError: 1 images without a mask: a.jpg. Add the masks.
    """
    if offenders:
        raise ValueError(f"{len(offenders)} {what}: {listed(offenders)}. {remedy}")
