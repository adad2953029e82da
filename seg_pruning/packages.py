"""`lightning.pytorch` and `pytorch_lightning` are one code in two packages, whose classes differ.

Either's trainer runs the other's callbacks, so that a project may bring objects of both.
"""

import sys
from collections.abc import Iterable
from typing import TypeVar, cast

_OURS, _TWIN = "lightning.pytorch.", "pytorch_lightning."
T = TypeVar("T")


def twins(kind: type[T]) -> tuple[type[T], ...]:
    """A class of `lightning.pytorch` and its twin of `pytorch_lightning`, for `isinstance`.

    The twin is left out where this process has not imported it (nothing can be of it then), and where that
    package is too old to have it.

    Args:
        kind: a class of `lightning.pytorch`.

    Example:
        >>> from lightning.pytorch.callbacks import ModelCheckpoint
        >>> isinstance(ModelCheckpoint(), twins(ModelCheckpoint))
        True
    """
    place = kind.__module__
    if not place.startswith(_OURS):
        raise ValueError(f"expected a class of lightning.pytorch, but {kind.__qualname__} is of {place}")
    twin = getattr(sys.modules.get(_TWIN + place.removeprefix(_OURS)), kind.__name__, None)
    return (kind,) if twin is None else (kind, cast("type[T]", twin))


def of_kind(objects: Iterable[object], kind: type[T]) -> list[T]:
    """Those of `objects` that are of a class of `lightning.pytorch`, or of its twin.

    Example:
        >>> from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
        >>> len(of_kind([ModelCheckpoint(), EarlyStopping("loss")], EarlyStopping))
        1
    """
    return [found for found in objects if isinstance(found, twins(kind))]
