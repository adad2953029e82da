"""Names and patterns -> the groups whose width is not to be touched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import TYPE_CHECKING

from seg_pruning.surgery.errors import PruningError

if TYPE_CHECKING:
    from seg_pruning.surgery.graph import ChannelGraph, ChannelGroup


def names_of(protect: object) -> tuple[str, ...]:
    """Names and patterns as a tuple.

    Raises:
        PruningError: they are no collection of names; a lone string counts as none, its letters are meant by
            nobody.

    Example:
        >>> names_of(["head.*"])
        ('head.*',)
    """
    names = tuple(protect) if isinstance(protect, Iterable) and not isinstance(protect, str) else (None,)
    if not all(isinstance(name, str) and name for name in names):
        raise PruningError(
            f"expected protect to be a tuple of names such as ('head.*',), but got {protect!r}"
        )
    return names


def protected(graph: ChannelGraph, patterns: Sequence[str]) -> frozenset[str]:
    """The groups whose width `patterns` keep; see `matching`."""
    return matching(graph, patterns, option="protect")


def matching(graph: ChannelGraph, patterns: Sequence[str], *, option: str) -> frozenset[str]:
    """The groups that `patterns` name.

    A pattern names a group, a layer that makes or carries its channels (a norm, say), a module around such a
    layer, or a parameter or buffer of it.

    Args:
        graph: the groups.
        patterns: names, or patterns such as `"head.*"`.
        option: whose patterns they are, for the message.

    Raises:
        PruningError: a pattern matches nothing; the message lists the nearest names.
    """
    names = {group.name: (group.name, *_carriers(group)) for group in graph.groups}
    _refuse_unknown(option, patterns, names, graph.trace.shapes)
    return frozenset(name for name, carriers in names.items() if _any_matches(patterns, carriers))


def _carriers(group: ChannelGroup) -> Iterator[str]:
    """The tensors that hold channels of the group and do not merely read them."""
    return (member.tensor for member in group.members if member.side != "in")


def _refuse_unknown(
    option: str, patterns: Sequence[str], groups: Mapping[str, Sequence[str]], tensors: Iterable[str]
) -> None:
    layers = {tensor.rpartition(".")[0]: None for tensor in tensors}
    known = [*dict.fromkeys([*groups, *filter(None, layers)])]
    for pattern in patterns:
        if not _any_matches((pattern,), (*known, *tensors)):
            near = get_close_matches(pattern, known, n=3) or known[:10]
            raise PruningError(
                f"{option} names {pattern!r}, which no group or layer matches; nearest: {', '.join(near)}"
            )


def _any_matches(patterns: Sequence[str], names: Iterable[str]) -> bool:
    """Whether a pattern matches one of the names, or a module around what it names."""
    paths = {path for name in names for path in accumulate(name.split("."), "{}.{}".format)}
    return any(pattern in paths or any(fnmatchcase(p, pattern) for p in paths) for pattern in patterns)
