"""Keeps a promise about metrics while a network is pruned: judges each cut, and takes back what broke it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from seg_pruning.callbacks.dense import checkpoint_folder
from seg_pruning.callbacks.floor import Floor, Search
from seg_pruning.callbacks.ranks import decided
from seg_pruning.callbacks.snapshot import Snapshot, read, restore_, take
from seg_pruning.pruning.budgets import Amounts
from seg_pruning.surgery.atomic import whole_file
from seg_pruning.surgery.errors import PruningError

Verdict: TypeAlias = Literal["nothing", "waiting", "kept", "broken"]


class Guard:
    """The floor of one training.

    Args:
        floor: the promise.
        cuts: how many the schedule plans.
    """

    def __init__(self, floor: Floor, cuts: int) -> None:
        self.floor = floor
        self.cuts = cuts
        self.forget()

    def forget(self) -> None:
        """Makes it as new."""
        self.search: Search | None = None
        self.values: dict[str, float] | None = None
        self.dense: dict[str, float] = {}
        self.attempts = 0
        self._before: Snapshot | None = None
        self._oldest = 1  # file that may still be there
        self._saved: int | None = None  # attempts that the newest checkpoint knows of

    @property
    def over(self) -> bool:
        """Whether nothing more will be cut."""
        return self.search is not None and self.search.over

    def note(self, trainer: L.Trainer) -> None:
        """Notes what a validation found.

        Raises:
            PruningError: it does not give the metrics of the floor.
        """
        self.values = decided(trainer, lambda: self._values(trainer))  # ranks may differ in what they saw

    def _values(self, trainer: L.Trainer) -> dict[str, float]:
        found = trainer.callback_metrics
        missing = [name for name in self.floor.names if name not in found]
        if missing:
            raise PruningError(
                f"the budget's floor is on {', '.join(missing[:10])}, which validation does not log; it logs "
                f"{', '.join(sorted(found)[:10]) or 'nothing'}"
            )
        return {name: float(found[name]) for name in self.floor.names}

    def start(self, trainer: L.Trainer) -> None:
        """Finds the network to go back to, where training goes on after a cut that is not judged yet."""
        if self.search is None or self.search.trying is None or self._before is not None:
            return
        beside = Path(trainer.ckpt_path) if trainer.ckpt_path else None
        folder = beside.parent if beside is not None else checkpoint_folder(trainer)
        self._before = read((folder or Path()) / self._name(self.attempts))

    def begin(self, dense: Amounts) -> None:
        """Notes the dense network's values just before the first cut; later calls do nothing.

        Raises:
            PruningError: there was no validation before.
        """
        if self.search is not None:
            return
        if self.values is None:
            raise PruningError(
                f"a floor on {', '.join(self.floor.names)} needs a validation of the dense network before "
                "the first cut: start later, or validate more often"
            )
        self.dense, self.search = dict(self.values), Search(dense)
        if broken := self.floor.broken(self.values, self.dense):
            rank_zero_warn(f"nothing is pruned: of the dense network {'; '.join(broken)}")
            self.search = Search(dense, over=True)

    def judge(self) -> tuple[Verdict, tuple[str, ...]]:
        """The verdict on the last cut, by the last validation since it, and the broken promises."""
        if self.search is None or self.search.trying is None:
            return "nothing", ()
        if self.values is None:
            return "waiting", ("there was no validation since the cut",)
        broken = self.floor.broken(self.values, self.dense)
        return ("broken" if broken else "kept"), broken

    def conclude_(
        self, trainer: L.Trainer, module: L.LightningModule, *, last: bool = False
    ) -> tuple[Verdict, Mapping[str, Any]]:
        """Carries the verdict out, with the caller's own state of before the cut where it was taken back.

        Args:
            trainer: the training.
            module: its module.
            last: whether no other validation will come: what cannot be judged is then taken back too.
        """
        verdict, broken = self.judge()
        if verdict == "nothing" or (verdict == "waiting" and not last):
            return verdict, {}
        assert self.search is not None
        self.search = self.search.judged(kept=verdict == "kept", of=self.cuts)
        if verdict == "kept":
            rank_zero_info(f"cut {self.attempts} keeps the promise: {_listed(self.values)}")
            return verdict, {}
        assert self._before is not None
        own = restore_(trainer, module, self._before)
        self.values = dict(own["values"])
        rank_zero_info(
            f"cut {self.attempts} is taken back at epoch {trainer.current_epoch}: {'; '.join(broken)}; "
            + ("pruning ends here" if self.over or last else "a smaller step follows")
        )
        return "broken", own

    def before_cut(
        self, trainer: L.Trainer, module: L.LightningModule, planned: Amounts, own: dict[str, Any]
    ) -> Amounts:
        """Keeps the network of before the next cut, and gives its limit.

        The file is for a run that goes on later; those that the newest checkpoint may ask for stay too, which
        may be older than several cuts.
        """
        assert self.search is not None
        self.search = self.search.tried(planned)
        assert self.search.trying is not None
        self.attempts += 1
        self._before = take(trainer, module, {**own, "values": dict(self.values or {})})
        self.values = None
        folder = checkpoint_folder(trainer)
        if folder is not None and trainer.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
            with whole_file(folder / self._name(self.attempts), alone=True) as draft:
                torch.save(self._before, draft)
            self._remove_old(folder)
        return self.search.trying

    def _remove_old(self, folder: Path) -> None:
        needed = self.attempts - 1 if self._saved is None else min(self._saved, self.attempts - 1)
        for attempt in range(self._oldest, needed):
            (folder / self._name(attempt)).unlink(missing_ok=True)
        self._oldest = max(self._oldest, needed)

    def state_dict(self) -> dict[str, Any]:
        """Plain types."""
        self._saved = self.attempts
        return {
            "search": None if self.search is None else self.search.to_dict(),
            "values": self.values,
            "dense": self.dense,
            "attempts": self.attempts,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self.search = None if state["search"] is None else Search.from_dict(state["search"])
        self.values, self.dense, self.attempts = state["values"], state["dense"], state["attempts"]
        self._saved = self.attempts

    @staticmethod
    def _name(attempt: int) -> str:
        return f"rollback-{attempt}.ckpt"


def _listed(values: Mapping[str, float] | None) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in (values or {}).items())
