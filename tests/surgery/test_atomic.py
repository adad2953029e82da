import os
from pathlib import Path

import pytest

from seg_pruning.surgery.atomic import replace_text, whole_file


def test_the_text_is_there_as_it_was_given_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("old")
    replace_text(path, "ä,1\r\n")
    assert path.read_bytes() == "ä,1\r\n".encode()
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("old")
    with whole_file(path) as draft:
        draft.write_text("ne")
        assert path.read_text() == "old"
        draft.write_text("new")
    assert path.read_text() == "new"


@pytest.mark.parametrize("text", ["new", "\ud800"], ids=["replacing fails", "writing fails"])
def test_a_failure_leaves_the_old_file_alone(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("full")

    path = tmp_path / "rows.csv"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises((OSError, UnicodeEncodeError), match=r"full|surrogates"):
        replace_text(path, text)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
