import json
from pathlib import Path

import pytest

from seg_pruning.profiling.cache import LatencyCache

CONDITIONS = {"device": "abacus", "threads": 1}


def test_times_are_added_to_those_that_others_wrote(tmp_path: Path) -> None:
    first, second = LatencyCache(tmp_path / "new", CONDITIONS), LatencyCache(tmp_path / "new", CONDITIONS)
    assert first.load() == {}
    first.add({"a": {"1,1": 1.0}, "b": {"1,1": 2.0}})
    second.add({"a": {"1,2": 3.0, "1,1": 4.0}})
    assert first.load() == {"a": {"1,1": 4.0, "1,2": 3.0}, "b": {"1,1": 2.0}}
    assert list(first.path.parent.iterdir()) == [first.path]
    other = LatencyCache(tmp_path / "new", CONDITIONS | {"threads": 2})
    assert other.load() == {}
    assert other.path != first.path


def test_nothing_new_leaves_no_file(tmp_path: Path) -> None:
    LatencyCache(tmp_path, CONDITIONS).add({})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="latency cache .* cannot be written"):
        LatencyCache(tmp_path / "file", CONDITIONS).add({"a": {"1,1": 1.0}})


@pytest.mark.parametrize("time", ["1", True, -1, float("inf"), float("nan"), None])
def test_what_is_no_time_is_not_read(tmp_path: Path, time: object) -> None:
    cache = LatencyCache(tmp_path, CONDITIONS)
    cache.path.write_text(json.dumps({"conditions": CONDITIONS, "layers": {"a": {"1,1": time}}}))
    with pytest.warns(UserWarning, match="no number of milliseconds"):
        assert cache.load() == {}
