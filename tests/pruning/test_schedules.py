from itertools import pairwise

import pytest

from seg_pruning.pruning import schedules
from seg_pruning.pruning.schedules import SCHEDULES, events, progress_at, target
from seg_pruning.surgery.errors import PruningError

STEPS = [step / 20 for step in range(21)]


@pytest.mark.parametrize("kept", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_runs_from_0_to_1_and_never_back(name: str, kept: float) -> None:
    way = [SCHEDULES[name](progress, kept) for progress in STEPS]
    assert way[0] == 0
    assert way[-1] == pytest.approx(1)
    assert all(before <= after for before, after in pairwise(way))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("one_shot", [0.1, 0.1, 0.1]),
        ("linear", [0.7, 0.4, 0.1]),
        ("cubic", [1 - 0.9 * 19 / 27, 1 - 0.9 * 26 / 27, 0.1]),
        ("exponential", [0.1 ** (1 / 3), 0.1 ** (2 / 3), 0.1]),
    ],
)
def test_fraction_kept_at_three_cuts(name: str, expected: list[float]) -> None:
    kept = [target(0.1, cut / 3, schedule=name) for cut in (1, 2, 3)]
    assert kept == pytest.approx(expected)
    assert kept[-1] == 0.1
    assert target(0.1, 0.0, schedule=name) == 1


def test_a_schedule_of_ones_own() -> None:
    assert target(0.5, 0.5, schedule=lambda progress, kept: progress**2) == 0.875
    assert schedules.get("cubic") is schedules.cubic


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: target(0.0, 0.5), "above 0 and at most 1, but got 0.0"),
        (lambda: target(1.5, 0.5), "got 1.5"),
        (lambda: target(0.5, 1.01), r"\[0, 1\], but got 1.01"),
        (lambda: target(0.5, 0.5, schedule="cubik"), "did you mean 'cubic'"),
        (lambda: events(-1, 1, 3, 10), "start_epoch to be 0 or more, but got -1"),
        (lambda: events(1, 0, 3, 10), "every_n_epochs to be 1 or more, but got 0"),
        (lambda: events(4, 1, 3, 10), "start_epoch=4 or later, but got 3"),
        (lambda: events(4, 2, 10, 10), "epoch 10 .* of 10, .* max_epochs=11 or more"),
        (lambda: events(4, 1, None, 4), "max_epochs=5 or more"),
        (lambda: progress_at(3, ()), "at least one epoch"),
        (lambda: events(-1, 1, 3, 10, unit="step"), "start_step to be 0 or more, but got -1"),
        (lambda: events(1, 0, 3, 10, unit="step"), "every_n_steps to be 1 or more, but got 0"),
        (lambda: events(4, 1, 3, 10, unit="step"), "end_step to be start_step=4 or later"),
        (lambda: events(4, 2, 10, 10, unit="step"), "step 10 .* of 10, .* max_steps=11 or more"),
    ],
)
def test_what_cannot_be_is_refused(call: object, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        call()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("arguments", "due"),
    [
        ((5, 2, 25, 30), tuple(range(5, 26, 2))),
        ((0, 1, 2, 3), (0, 1, 2)),
        ((3, 4, 10, 8), (3, 7)),
        ((3, 1, None, 10), (3,)),
        ((3, 5, 8, -1), (3, 8)),
        ((3, 5, 8, None), (3, 8)),
    ],
)
def test_epochs_with_a_cut(arguments: tuple[int, int, int | None, int | None], due: tuple[int, ...]) -> None:
    assert events(*arguments) == due
    assert events(*arguments, unit="step") == due


def test_progress_counts_the_cuts_that_are_done() -> None:
    assert [progress_at(epoch, (2, 4, 6, 8)) for epoch in (0, 2, 3, 4, 6, 8, 99)] == [
        0, 0.25, 0.25, 0.5, 0.75, 1, 1,
    ]  # fmt: skip
