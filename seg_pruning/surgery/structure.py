"""What makes a pruned network different from its dense one, as plain data.

Shapes are in the tensors themselves. The rest is small: attributes that were rewritten, modules that were
dropped, the kept channels with respect to the dense network, and the largest error that the certificates
measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.expressions import Attribute
from seg_pruning.surgery.plan import Plan

if TYPE_CHECKING:
    from seg_pruning.surgery.cut import Cut

VERSION = 1


@dataclass(frozen=True)
class Structure:
    """How a network differs from the dense one.

    Attributes:
        plans: the cuts so far. One plan that names channels of the dense network; a later one is listed by
            itself where its groups do not continue the earlier ones.
        sizes: dense and present value of each attribute that was rewritten.
        dense: dense shape of each tensor that was cut, by which a file of another network is told.
        max_error: largest relative error of all certificates; None where a cut was applied by hand without
            one.
    """

    plans: tuple[Plan, ...] = ()
    sizes: Mapping[Attribute, tuple[int, int]] = field(default_factory=dict)
    dense: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    max_error: float | None = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", dict(self.sizes))
        object.__setattr__(self, "dense", {name: tuple(shape) for name, shape in self.dense.items()})

    @property
    def dropped(self) -> tuple[str, ...]:
        """Modules that are no longer there."""
        return tuple(dict.fromkeys(path for plan in self.plans for path in plan.dropped))

    @property
    def tells(self) -> bool:
        """Whether anything is different from the dense network."""
        return bool(self.plans or self.sizes or self.dense)

    def below(self, path: str) -> Structure:
        """The structure of the submodule at `path`, for use without its parents; "" is the network itself."""
        if not path:
            return self
        prefix = f"{path}."
        sizes = {
            Attribute(a.module.removeprefix(prefix).removeprefix(path), a.name, a.index): values
            for a, values in self.sizes.items()
            if f"{a.module}.".startswith(prefix)
        }
        dense = {n.removeprefix(prefix): shape for n, shape in self.dense.items() if n.startswith(prefix)}
        plans = tuple(plan.below(path) for plan in self.plans)
        found = Structure(tuple(plan for plan in plans if plan.tells), sizes, dense)
        return replace(found, max_error=self.max_error) if found.tells else found

    def with_part(self, path: str, part: Structure) -> Structure:
        """This structure with `part` as that of the submodule at `path`; "" replaces it whole."""
        if not path:
            return part
        prefix = f"{path}."
        sizes = {a: values for a, values in self.sizes.items() if not f"{a.module}.".startswith(prefix)}
        for a, values in part.sizes.items():
            sizes[Attribute(".".join(filter(None, (path, a.module))), a.name, a.index)] = values
        dense = {name: shape for name, shape in self.dense.items() if not name.startswith(prefix)}
        dense |= {f"{prefix}{name}": shape for name, shape in part.dense.items()}
        pairs = zip_longest(self.plans, part.plans, fillvalue=Plan({}, {}))
        plans = (others.with_part(path, own) for others, own in pairs)
        errors = [one.max_error for one in (self, part) if one.tells]
        known = None if None in errors else max((e for e in errors if e is not None), default=0.0)
        return Structure(tuple(plan for plan in plans if plan.tells), sizes, dense, known)

    def followed_by(self, cut: Cut, before: Mapping[Attribute, int], max_error: float | None) -> Structure:
        """The structure after one more cut of a network whose attributes were `before`."""
        sizes = dict(self.sizes)
        for attribute, value in cut.sizes.items():
            sizes[attribute] = (sizes.get(attribute, (before[attribute], value))[0], value)
        joined = self.plans[-1].then(cut.plan) if self.plans else cut.plan
        plans = (*self.plans[:-1], joined) if joined is not None else (*self.plans, cut.plan)
        dense = {name: tuple(mask.shape) for name, mask in cut.masks.items()} | dict(self.dense)
        known = None if max_error is None or self.max_error is None else max(self.max_error, max_error)
        return Structure(plans, sizes, dense, known)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        sizes = [[a.module, a.name, a.index, *values] for a, values in sorted(self.sizes.items())]
        plans = [plan.to_dict() for plan in self.plans]
        dense = {name: list(shape) for name, shape in self.dense.items()}
        return {
            "version": VERSION,
            "plans": plans,
            "sizes": sizes,
            "dense": dense,
            "max_error": self.max_error,
        }

    @classmethod
    def from_dict(cls, data: object) -> Structure:
        """The structure that `to_dict` gave.

        Raises:
            PruningError: it is of another version or malformed.
        """
        wanted = {"plans": list, "sizes": list, "dense": dict}
        if not isinstance(data, dict) or not all(isinstance(data.get(k), t) for k, t in wanted.items()):
            raise PruningError(
                "the structure of a pruned network is a JSON object with 'version', 'plans', 'sizes' "
                "and 'dense'"
            )
        if data.get("version") != VERSION:
            raise PruningError(
                f"the structure has version {data.get('version')!r}; "
                f"this release reads version {VERSION}: update seg_pruning"
            )
        sizes = {}
        for entry in data["sizes"]:
            if not _is_size(entry):
                raise PruningError(
                    f"a rewritten size is [module, attribute, index, dense, now], not {entry!r:.100}"
                )
            module, name, index, dense, now = entry
            sizes[Attribute(module, name, index)] = (dense, now)
        for name, shape in data["dense"].items():
            if not isinstance(shape, list) or not all(type(size) is int and size > 0 for size in shape):
                raise PruningError(f"the dense shape of {name!r} is a list of sizes, not {shape!r:.100}")
        error = data.get("max_error")
        if error is not None and type(error) not in (int, float):
            raise PruningError(
                f"the largest error of the certificates is a number or null, not {error!r:.100}"
            )
        return cls(tuple(map(Plan.from_dict, data["plans"])), sizes, data["dense"], error)


def _is_size(entry: object) -> bool:
    if not isinstance(entry, list) or len(entry) != 5:
        return False
    module, name, index, dense, now = entry
    ints = all(type(v) is int and v > 0 for v in (dense, now)) and (index is None or type(index) is int)
    return isinstance(module, str) and isinstance(name, str) and not name.startswith("_") and ints
