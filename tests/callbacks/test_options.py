import pytest

from seg_pruning.callbacks import IterativePruning, Recovery, Schedule, Scoring
from seg_pruning.surgery.errors import PruningError


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recovery(compensate=1.5), "compensate to be a whole number of 0 or more, but got 1.5"),
        (lambda: Recovery(recalibrate=-1), "recalibrate to be a whole number of 0 or more, but got -1"),
        (lambda: Recovery(rewarm=1.5), "rewarm .* 1.5"),
        (lambda: Recovery(rewind_to=True), "rewind_to .* True"),
        (lambda: Recovery(rewind="weight"), "rewind to be one of .* 'weight'"),
        (lambda: Schedule("cubik"), "did you mean 'cubic'"),
        (lambda: Schedule(start_step=-1), "start_step to be 0 or more"),
        (lambda: Schedule(every_n_steps=0), "every_n_steps to be 1 or more"),
        (lambda: Schedule(every_n_steps=-2), "every_n_steps to be 1 or more, but got -2"),
        (lambda: Schedule(start_step=4, end_step=3), "start_step=4 or later, but got 3"),
        (lambda: Schedule(every_n_steps=2.5), "every_n_steps to be a whole number, but got 2.5"),
        (lambda: Schedule(start_step="3"), "start_step to be a whole number, but got '3'"),
        (lambda: Schedule(None), "shape to be a name"),
        (lambda: Schedule(recovery="weights"), "recovery to be a Recovery.* 'weights'"),
        (lambda: Recovery(rewind_to=5), "rewind_to=5 changes nothing .* rewind='weights'"),
        (lambda: Scoring(bn_penalty="1e-4"), "bn_penalty to be 0 or more, but got '1e-4'"),
        (lambda: Scoring(loss=print), "loss=.* batches=0 .* batches=8"),
        (lambda: Scoring(batches=-2), "batches .* -2"),
        (lambda: Scoring(bn_penalty=-1e-4), "bn_penalty to be 0 or more, but got -0.0001"),
        (lambda: Scoring(bn_penalty=float("nan")), "bn_penalty"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(PruningError, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": Schedule(every_n_steps=5), "start_epoch": 2}, "by step or by epoch"),
        ({"schedule": Schedule(start_step=0)}, "start at step 1 or later"),
        ({"criterion": Scoring("taylor", batches=4)}, r"needs a loss: give Scoring\(loss="),
        ({"selection": "global"}, r"selection to be a Selection\(...\), but got 'global'"),
        ({"start_epoch": 1.5}, "start_epoch to be a whole number, but got 1.5"),
        ({"end_epoch": 3.0}, "end_epoch to be a whole number, but got 3.0"),
        ({"budget": 0.3}, "a budget is a mapping such as .*, but got 0.3"),
        ({"budget": {"params": 0.5, "max_drop": 0.01}}, "max_drop to be a mapping"),
        ({"budget": {"params": 0.5, "max_drop": {"val/dice": -1}}}, "max_drop of 'val/dice' .* -1"),
        ({"budget": {"params": 0.5, "min": {"val/dice": "high"}}}, "min of 'val/dice' .* 'high'"),
        ({"budget": {"min": {"val/dice": 0.5}}}, "only min: say also how far"),
    ],
)
def test_the_callback_refuses(options, message):
    with pytest.raises(PruningError, match=message):
        IterativePruning(**{"budget": {"params": 0.5}, **options})


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        (Schedule(every_n_steps=3, end_step=10), (3, 6, 9)),
        (Schedule(start_step=2, every_n_steps=4, end_step=10), (2, 6, 10)),
        (Schedule(start_step=7), (7,)),
        (Schedule(start_step=2, end_step=4), (2, 3, 4)),
    ],
)
def test_steps(schedule, steps):
    callback = IterativePruning(budget={"params": 0.5}, schedule=schedule)
    assert (callback.timing.unit, callback.timing.times) == ("step", steps)
    assert callback.epochs == ()


def test_names_stand_for_defaults():
    callback = IterativePruning(budget={"params": 0.5}, schedule="linear", criterion="l1")
    assert callback.schedule == Schedule("linear", recovery=Recovery())
    assert callback.scores.scoring == Scoring("l1")
    assert callback.guard is None
