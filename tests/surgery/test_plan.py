import json

import pytest

from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.plan import Plan


def test_round_trip():
    plan = Plan({"a": (0, 2), "b": (1,)}, {"a": 4, "b": 2}, dropped=("aux",))
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("kept", [(), (2, 1), (1, 1), (-1,), (4,), (0.0,)])
def test_impossible_channels(kept):
    with pytest.raises(PruningError, match=r"group 'a'; legal are .* 0 to 3, ascending"):
        Plan({"a": kept}, {"a": 4})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "JSON object, not list"),
        (json.dumps({"version": 2, "kept": {}, "sizes": {}, "dropped": []}), "version 2.*update"),
        (json.dumps({"version": 1, "kept": [], "sizes": {}, "dropped": []}), "'kept' must be a JSON object"),
        (json.dumps({"version": 1, "kept": {"a": [0]}, "sizes": {}, "dropped": []}), "does not say its size"),
        (
            json.dumps({"version": 1, "kept": {"a": 5}, "sizes": {"a": 9}, "dropped": []}),
            r"at \['a'\].*lists",
        ),
        (json.dumps({"version": 1, "kept": {}, "sizes": {"b": "9"}, "dropped": []}), r"at \['b'\].*numbers"),
        (json.dumps({"version": 1, "kept": {}, "sizes": {}, "dropped": [""]}), r"at \[''\].*modules"),
    ],
)
def test_bad_json(text, message):
    with pytest.raises(PruningError, match=message):
        Plan.from_json(text)


def test_one_plan_after_another():
    first = Plan({"a": (1, 3, 5)}, {"a": 6})
    assert first.then(Plan({"a": (0, 2), "b": (1,)}, {"a": 3, "b": 2})) == Plan(
        {"a": (1, 5), "b": (1,)}, {"a": 6, "b": 2}
    )
    assert first.then(Plan({"a": (0,)}, {"a": 4})) is None
