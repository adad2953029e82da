"""What is on disk after a run, after an interruption, and what is refused."""

import csv
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import seg_pruning as sp
from seg_pruning.pruning import Budget, amounts, select
from seg_pruning.pruning.sensitivity import sensitivity
from seg_pruning.pruning.sensitivity_record import (
    SensitivityRecord,
    SensitivityRow,
    read_sensitivity,
    tolerated_floors,
)
from tests.networks import Residual


def new_net(seed: int = 0) -> Residual:
    torch.manual_seed(seed)
    return Residual()


class Meter:
    """A metric that can be followed, and fails after as many calls as it is told."""

    def __init__(self, calls: int = 1000) -> None:
        self.left, self.seen = calls, 0

    def __call__(self, model: nn.Module) -> float:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left, self.seen = self.left - 1, self.seen + 1
        with torch.no_grad():
            return model(Residual.example()).abs().mean().item()


def measure(
    path: Path,
    meter: Meter,
    net: Residual | None = None,
    about: dict[str, str] | None = None,
    **options: object,
) -> list[SensitivityRow]:
    net = net or new_net()
    record = SensitivityRecord(path, about or {"data": "noise"})
    graph = sp.trace(net, Residual.example())
    return list(sensitivity(graph, net, meter, record=record, **options))  # type: ignore[arg-type]


def test_rows_are_read_back_as_they_were_given(tmp_path: Path) -> None:
    rows = measure(tmp_path / "new" / "s.csv", Meter())
    assert list(read_sensitivity(tmp_path / "new" / "s.csv")) == rows
    with (tmp_path / "new" / "s.csv").open() as stream:
        first = next(csv.DictReader(stream))
    assert list(first) == ["group", "size", "ratio", "kept", "params", "macs", "metric", "drop"]
    assert (first["group"], first["ratio"]) == ("stem", "0.25")
    assert {file.name for file in (tmp_path / "new").iterdir()} == {"s.csv", "s.json"}


@pytest.mark.parametrize("calls", [0, 1, 2, 4])
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path, calls: int) -> None:
    whole, parted = Meter(), Meter(calls)
    expected = measure(tmp_path / "whole.csv", whole)
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path / "parted.csv", parted)
    assert (tmp_path / "parted.csv").exists() == (calls > 1), "the first call is of the whole network"
    rest = Meter()
    assert measure(tmp_path / "parted.csv", rest) == expected
    kept = calls if calls > 1 else 0
    assert rest.seen == whole.seen - kept
    assert (tmp_path / "parted.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    nothing = Meter(0)
    assert measure(tmp_path / "parted.csv", nothing) == expected


def test_other_ratios_are_added(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    first = measure(path, Meter(), ratios=[0.5])
    meter = Meter()
    second = measure(path, meter, ratios=[0.25, 0.5])
    assert [row for row in second if row.ratio == 0.5] == first
    assert meter.seen == 2
    assert len(read_sensitivity(path)) == 4


def test_a_metric_that_is_no_number_at_a_point_is_kept_as_such(tmp_path: Path) -> None:
    def broken(model: nn.Module) -> float:
        return 1.0 if model.stem.out_channels == 10 else float("nan")

    for _ in range(2):
        rows = measure(tmp_path / "s.csv", broken, ratios=[0.5])  # type: ignore[arg-type]
    assert [row.metric == row.metric for row in rows] == [False, True]
    assert len(read_sensitivity(tmp_path / "s.csv")) == 2
    assert tolerated_floors(rows, max_drop=0.1) == {"stem": 1.0, "inner": 4 / 7}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"net": new_net(1)}, r"network: \w{16} there, \w{16} here"),
        ({"criterion": "l1"}, r"criterion: L2\(.*\) there, L1\(.*\) here"),
        ({"mode": "min"}, "mode: max there, min here"),
        ({"about": {"data": "other"}}, "data: noise there, other here"),
        ({"about": {"data": "noise", "limit": 3}}, "limit: None there, 3 here"),
    ],
)
def test_rows_of_something_else_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    measure(tmp_path / "s.csv", Meter())
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(sp.PruningError, match=message):
        measure(tmp_path / "s.csv", Meter(0), **changes)  # type: ignore[arg-type]
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f.with_suffix(".json").unlink(), r"s\.json does not say what .*FileNotFoundError"),
        (lambda f: f.with_suffix(".json").write_text('{"version": 9}'), "version 9, where this release"),
        (lambda f: f.with_suffix(".json").write_text("[]"), "does not say"),
        (lambda f: f.write_text("a,b\n1,2\n"), "no table of sensitivity: its first line is not group,size"),
        (lambda f: f.write_text(""), "no table of sensitivity"),
        (lambda f: f.write_text(f.read_text() + "stem,10,0.9"), r"line 10 is no row .*stem,10,0\.9\. Remove"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, damage: object, message: str) -> None:
    path = tmp_path / "s.csv"
    measure(path, Meter())
    damage(path)  # type: ignore[operator]
    with pytest.raises(sp.PruningError, match=message):
        measure(path, Meter(0))


def test_the_two_files_are_two() -> None:
    with pytest.raises(sp.PruningError, match="choose another suffix"):
        SensitivityRecord("s.json", {})


def test_what_is_there_says_what_it_is_of(tmp_path: Path) -> None:
    rows = measure(tmp_path / "s.csv", Meter(), about={"metric": "size of the answer"})
    stored = json.loads((tmp_path / "s.json").read_text())
    assert stored["about"]["metric"] == "size of the answer"
    assert stored["dense"] == pytest.approx(rows[0].metric + rows[0].drop)


def row(group: str, kept: int, drop: float) -> SensitivityRow:
    return SensitivityRow(group, 8, 1 - kept / 8, kept, 0, 0, 0.0, drop)


@pytest.mark.parametrize(
    ("drops", "max_drop", "floor"),
    [
        ({6: 0.01, 4: 0.02, 2: 0.3}, 0.02, 0.5),
        ({6: 0.01, 4: 0.02, 2: 0.3}, 0.0, 1.0),
        ({6: 0.01, 4: 0.02, 2: 0.3}, 0.3, 0.25),
        ({6: 0.05, 4: 0.0, 2: -0.1}, 0.02, 1.0),
        ({2: -0.1, 6: 0.0, 4: 0.05}, 0.02, 0.75),
        ({8: 0.0}, 0.0, 1.0),
    ],
)
def test_floors_go_down_to_the_last_tolerated_width(
    drops: dict[int, float], max_drop: float, floor: float
) -> None:
    rows = [row("conv", kept, drop) for kept, drop in drops.items()]
    assert tolerated_floors([*rows, row("other", 4, 0.0)], max_drop=max_drop) == {"conv": floor, "other": 0.5}


def test_floors_are_read_from_a_file(tmp_path: Path) -> None:
    rows = measure(tmp_path / "s.csv", Meter())
    assert tolerated_floors(tmp_path / "s.csv", max_drop=0.01) == tolerated_floors(rows, max_drop=0.01)
    with pytest.raises(sp.PruningError, match="there is no file"):
        tolerated_floors(tmp_path / "none.csv", max_drop=0.01)


def test_floors_are_limits_of_a_selection() -> None:
    """Scores would take all of `stem` first; its floor does not let them."""
    net = new_net()
    graph = sp.trace(net, Residual.example())
    scores = {"stem": torch.zeros(10), "inner": torch.ones(7)}
    rows = [row("stem", 6, 0.0), row("stem", 4, 0.2), row("inner", 8, 0.0)]
    floors = tolerated_floors(rows, max_drop=0.1)
    assert floors == {"stem": 0.75, "inner": 1.0}
    least = select(graph, scores, Budget(channels=15 / 17).limit(amounts(graph)), sp.Selection(floor=floors))
    assert {name: len(kept) for name, kept in least.kept.items()} == {"stem": 8}
    with pytest.raises(sp.PruningError, match="cannot be reached"):
        select(graph, scores, Budget(channels=0.5).limit(amounts(graph)), sp.Selection(floor=floors))


@pytest.mark.parametrize("max_drop", [-0.1, float("nan"), float("inf")])
def test_a_tolerance_that_means_nothing_is_refused(max_drop: float) -> None:
    with pytest.raises(sp.PruningError, match="expected max_drop to be 0 or more"):
        tolerated_floors([], max_drop=max_drop)
