import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import seg_pruning as sp
from seg_pruning.pruning.sensitivity_record import SensitivityRow
from seg_pruning.report.sensitivity_figure import save_figure, sensitivity_figure

DROPS = {("stem", 0.25): 0.0, ("stem", 0.5): 0.5, ("inner", 0.25): -0.0001, ("inner", 0.5): float("nan")}
ROWS = [SensitivityRow(group, 8, ratio, 4, 0, 0, 0.0, drop) for (group, ratio), drop in DROPS.items()]


def test_a_line_for_each_group_and_a_column_for_each_ratio() -> None:
    axes = sensitivity_figure(ROWS[::-1], metric="val/dice").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["inner (8)", "stem (8)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["25 %", "50 %"]
    assert [text.get_text() for text in axes.texts] == ["0.000", "?", "0.000", "0.500"]
    assert np.ma.filled(axes.images[0].get_array(), -9).tolist() == [[-0.0001, -9], [0.0, 0.5]]
    assert axes.images[0].get_clim() == (0, 0.5)
    assert "val/dice" in axes.get_title(loc="left")


def test_it_is_written_as_a_picture(tmp_path: Path) -> None:
    save_figure(ROWS, tmp_path / "s.png", metric="val/dice")
    pixels = np.asarray(Image.open(tmp_path / "s.png").convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10


def test_nothing_is_drawn_of_nothing() -> None:
    with pytest.raises(sp.PruningError, match="nothing to draw"):
        sensitivity_figure([], metric="val/dice")


def test_the_extra_is_named_where_matplotlib_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(sp.PruningError, match=r"pip install 'seg-pruning\[plot\]'"):
        save_figure(ROWS, tmp_path / "s.png", metric="val/dice")
    assert list(tmp_path.iterdir()) == []
