import os
from datetime import datetime

import pytest

from seg_pruning.surgery.errors import PruningError
from seg_pruning.tracking import RunFolder, written

NOW = datetime(2026, 1, 2, 3, 4, 5)


def test_named_after_the_time_or_by_the_user(tmp_path):
    assert RunFolder(str(tmp_path)).choose(NOW) == tmp_path / "2026-01-02_03-04-05"
    assert RunFolder(str(tmp_path), "mine").choose(NOW) == tmp_path / "mine"
    assert list(tmp_path.iterdir()) == [], "choosing makes nothing"


def test_a_second_run_of_the_same_second(tmp_path):
    for expected in ("2026-01-02_03-04-05", "2026-01-02_03-04-05-2", "2026-01-02_03-04-05-3"):
        folder = RunFolder(str(tmp_path)).choose(NOW)
        assert folder.name == expected
        folder.mkdir()


def test_a_folder_that_exists_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(PruningError, match="mine exists, and no run overwrites another"):
        RunFolder(str(tmp_path), "mine").choose(NOW)
    with pytest.raises(FileExistsError), written(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()


def test_a_run_that_goes_on_gets_a_number(tmp_path):
    for expected in ("mine", "mine-2", "mine-3"):
        folder = RunFolder(str(tmp_path), "mine").choose(NOW, goes_on=True)
        assert folder.name == expected
        folder.mkdir()


def test_the_newest_last_checkpoint_of_a_name(tmp_path):
    assert RunFolder(str(tmp_path), "mine").last() is None
    assert RunFolder(str(tmp_path)).last() is None
    files = [f"{run}/checkpoints/last{v}.ckpt" for run in ("mine", "mine-2", "mine-too") for v in ("", "-v1")]
    for time, file in enumerate(files):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
        os.utime(tmp_path / file, (time, time))
    (tmp_path / "mine/checkpoints/best.ckpt").touch()
    assert RunFolder(str(tmp_path), "mine").last() == tmp_path / "mine-2/checkpoints/last-v1.ckpt"
    assert RunFolder(str(tmp_path), "mine-too").last() == tmp_path / "mine-too/checkpoints/last-v1.ckpt"
    assert RunFolder(str(tmp_path)).last() == tmp_path / "mine-too/checkpoints/last-v1.ckpt"
    os.utime(tmp_path / files[0], (9, 9))
    assert RunFolder(str(tmp_path), "mine").last() == tmp_path / files[0]


@pytest.mark.parametrize("name", ["", "a/b", "..", "/a", "."])
def test_a_name_is_no_path(name, tmp_path):
    with pytest.raises(PruningError, match="plain folder name"):
        RunFolder(str(tmp_path), name).choose(NOW)


def fail_after(folder, *files):
    with written(folder):
        for file in files:
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).touch()
        raise KeyboardInterrupt


@pytest.mark.parametrize("files", [[], ["config.yaml"], ["config.yaml", "wandb/run"]])
def test_a_failure_without_results_leaves_nothing(files, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fail_after(tmp_path / "runs" / "new", *files)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["metrics.csv", "checkpoints/last.ckpt", "masks/a.png"])
def test_a_failure_with_results_leaves_them(file, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fail_after(tmp_path / "new", "config.yaml", file)
    assert (tmp_path / "new" / file).exists()


def test_the_folders_of_other_runs_stay(tmp_path):
    (tmp_path / "runs" / "old").mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        fail_after(tmp_path / "runs" / "new")
    assert (tmp_path / "runs" / "old").is_dir()
