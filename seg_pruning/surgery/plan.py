"""A plan: which channels of each group are kept. Plain data, readable as JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from seg_pruning.surgery.errors import PruningError

VERSION = 1


@dataclass(frozen=True)
class Plan:
    """The kept channels of each group; a group that is not named is kept whole.

    Attributes:
        kept: kept indices of each group, ascending.
        sizes: number of channels that each of these groups had when the plan was made.
        dropped: modules that never run and go as a whole.
    """

    kept: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int]
    dropped: tuple[str, ...] = ()
    version: int = field(default=VERSION)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kept", {k: tuple(v) for k, v in self.kept.items()})
        object.__setattr__(self, "sizes", dict(self.sizes))
        object.__setattr__(self, "dropped", tuple(self.dropped))
        for name, kept in self.kept.items():
            _check_indices(name, kept, self.sizes.get(name))

    @property
    def tells(self) -> bool:
        """Whether it removes anything, or names a group."""
        return bool(self.kept or self.dropped)

    def to_json(self) -> str:
        """The plan as JSON text.

        >>> Plan({"conv": (0, 2)}, {"conv": 4}).to_json()
        '{"version": 1, "kept": {"conv": [0, 2]}, "sizes": {"conv": 4}, "dropped": []}'
        """
        return json.dumps(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain JSON types."""
        kept = {name: list(indices) for name, indices in self.kept.items()}
        return {
            "version": self.version,
            "kept": kept,
            "sizes": dict(self.sizes),
            "dropped": list(self.dropped),
        }

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan that `to_json` wrote.

        Raises:
            PruningError: the text is not JSON, lacks a key, is of a newer version, or names impossible
                channels.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise PruningError(f"the plan is not JSON: {error}") from error
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: object) -> "Plan":
        """The plan of already parsed JSON; see `from_json`."""
        fields = _checked_fields(data)
        kept = {name: tuple(indices) for name, indices in fields["kept"].items()}
        return cls(kept, fields["sizes"], tuple(fields["dropped"]))

    def below(self, path: str) -> "Plan":
        """The part of the plan that is about the submodule at `path`, in its own names.

        >>> Plan({"net.conv": (0, 2)}, {"net.conv": 4}).below("net").kept
        {'conv': (0, 2)}
        """
        prefix = f"{path}."
        kept = {n.removeprefix(prefix): v for n, v in self.kept.items() if n.startswith(prefix)}
        sizes = {n.removeprefix(prefix): v for n, v in self.sizes.items() if n.startswith(prefix)}
        return Plan(kept, sizes, tuple(d.removeprefix(prefix) for d in self.dropped if d.startswith(prefix)))

    def with_part(self, path: str, part: "Plan") -> "Plan":
        """This plan with `part` as what it says of the submodule at `path`.

        >>> whole, part = Plan({"net.conv": (0, 2)}, {"net.conv": 4}), Plan({"last": (1,)}, {"last": 2})
        >>> whole.with_part("net", part).kept
        {'net.last': (1,)}
        """
        prefix = f"{path}."
        kept = {n: v for n, v in self.kept.items() if not n.startswith(prefix)}
        sizes = {n: v for n, v in self.sizes.items() if not n.startswith(prefix)}
        dropped = tuple(d for d in self.dropped if not d.startswith(prefix))
        kept |= {f"{prefix}{n}": v for n, v in part.kept.items()}
        sizes |= {f"{prefix}{n}": v for n, v in part.sizes.items()}
        return Plan(kept, sizes, (*dropped, *(f"{prefix}{d}" for d in part.dropped)))

    def then(self, later: "Plan") -> "Plan | None":
        """The one plan that equals this one followed by `later`; None where `later` does not fit it."""
        kept = dict(self.kept)
        sizes = dict(self.sizes)
        for name, indices in later.kept.items():
            before = kept.get(name, tuple(range(later.sizes[name])))
            if len(before) != later.sizes[name]:
                return None
            kept[name] = tuple(before[i] for i in indices)
            sizes.setdefault(name, later.sizes[name])
        return Plan(kept, sizes, tuple(dict.fromkeys((*self.dropped, *later.dropped))))


def _check_indices(name: str, kept: tuple[int, ...], size: int | None) -> None:
    if size is None:
        raise PruningError(f"the plan keeps channels of group {name!r} but does not say its size")
    legal = all(isinstance(i, int) and 0 <= i < size for i in kept)
    if not kept or not legal or list(kept) != sorted(set(kept)):
        shown = ", ".join(map(str, kept[:10]))
        raise PruningError(
            f"the plan keeps channels [{shown}{', ...' if len(kept) > 10 else ''}] of group {name!r}; "
            f"legal are one or more different indices from 0 to {size - 1}, ascending"
        )


def _checked_fields(data: object) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise PruningError(f"a plan is a JSON object, not {type(data).__name__}")
    version = data.get("version")
    if version != VERSION:
        raise PruningError(
            f"the plan has version {version!r}; this release reads version {VERSION}: update seg_pruning"
        )
    wanted = {"kept": dict, "sizes": dict, "dropped": list}
    for key, kind in wanted.items():
        if not isinstance(data.get(key), kind):
            raise PruningError(f"the plan's {key!r} must be a JSON {'object' if kind is dict else 'array'}")
    _check_entries(data)
    return data


def _check_entries(data: dict[str, Any]) -> None:
    wrong = [name for name, indices in data["kept"].items() if not isinstance(indices, list)]
    wrong += [name for name, size in data["sizes"].items() if type(size) is not int or size < 1]
    wrong += [path for path in data["dropped"] if not isinstance(path, str) or not path]
    if wrong:
        raise PruningError(
            f"the plan is malformed at {wrong[:10]}: 'kept' holds lists of indices by group, 'sizes' whole "
            "numbers above 0 by group, 'dropped' names of modules"
        )
