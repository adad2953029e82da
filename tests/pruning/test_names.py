import pytest

from seg_pruning.pruning.names import choose
from seg_pruning.surgery.errors import PruningError


@pytest.mark.parametrize(
    ("name", "hint"),
    [("TAYLOR", "; did you mean 'taylor'?"), ("zzz", ""), ("", "")],
    ids=["case", "far", "empty"],
)
def test_the_nearest_name_is_offered_where_one_is_near(name: str, hint: str) -> None:
    with pytest.raises(PruningError) as caught:
        choose({"l1": 1, "taylor": 2}, name, kind="criterion")
    assert str(caught.value) == f"no criterion is called {name!r}: choose one of l1, taylor{hint}"
