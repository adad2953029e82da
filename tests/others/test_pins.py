"""What leaves no network although it could, and what must not."""

import pytest

from tests.others.cases import CASES
from tests.others.traced import traced

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning"),
]
NEEDLESSLY = {  # what stays although it could leave; each that goes from here is progress
    "CondConv": {"stem.0", "", "#2", "#3", "#4"},
    "WeightNormOfColumns": {"a", "up"},
}
RIGHTLY = ("reaches the output", "it has a single channel", "never runs")


@pytest.mark.parametrize("name", CASES)
def test_only_what_has_to_stay_is_pinned(name):
    _, graph = traced(name)
    pinned = {g.name: g.reason for g in graph.groups if not g.prunable and g.reason not in RIGHTLY}
    assert set(pinned) - {*CASES[name].pinned} == NEEDLESSLY.get(name, set()), pinned
