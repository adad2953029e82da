import numpy as np
import pytest
from PIL import Image

from seg_pruning.data import FolderData, MaskRule

NAMES = [f"s{number:02d}" for number in range(20)]


def names_of(data):
    parts = data.load_parts()
    return parts.train.names, parts.val.names, parts.test.names


def folder(root, **changes):
    return FolderData(root, **({"image_size": 8, "num_workers": 0} | changes))


def write_split(root, **parts):
    (root / "splits").mkdir()
    for part, names in parts.items():
        (root / "splits" / f"{part}.txt").write_text("\n".join(names))


def test_a_flat_folder_is_split_at_random_and_the_same_each_time(tmp_path, write_pairs):
    write_pairs(tmp_path, NAMES)
    train, val, test = names_of(folder(tmp_path))
    assert (len(train), len(val), len(test)) == (14, 2, 4)
    assert sorted(train + val + test) == NAMES
    assert names_of(folder(tmp_path, seed=5, image_size=4)) == (train, val, test)


@pytest.mark.parametrize("layout", ["train/images", "images/train"])
def test_folders_of_parts_are_found(tmp_path, write_pairs, layout):
    for part, names in {"train": "abc", "valid": "de", "test": "a"}.items():
        inner = layout.replace("train", part)
        write_pairs(tmp_path, names, images=inner, masks=inner.replace("images", "masks"))
    assert names_of(folder(tmp_path)) == (("a", "b", "c"), ("d", "e"), ("a",))


def test_a_missing_validation_folder_is_carved_out_of_training(tmp_path, write_pairs):
    write_pairs(tmp_path / "train", NAMES)
    write_pairs(tmp_path / "test", ["t"])
    train, val, test = names_of(folder(tmp_path, holdout=(0.25, 0.1)))
    assert (len(train), len(val), test) == (15, 5, ("t",))
    assert sorted(train + val) == NAMES


def test_lists_decide_the_parts(tmp_path, write_pairs):
    write_pairs(tmp_path, "abcdef")
    write_split(tmp_path, train=["c", "a.png"], val=["b"], test=["f"])
    assert names_of(folder(tmp_path)) == (("a", "c"), ("b",), ("f",))


def test_lists_without_validation_have_it_carved_out(tmp_path, write_pairs):
    write_pairs(tmp_path, NAMES)
    write_split(tmp_path, train=NAMES[:10], test=NAMES[15:])
    train, val, test = names_of(folder(tmp_path, holdout=(0.2, 0.2)))
    assert (len(train), len(val), list(test)) == (8, 2, NAMES[15:])
    assert sorted(train + val) == NAMES[:10]


def test_other_usual_names_of_folders_are_found(tmp_path, write_pairs):
    write_pairs(tmp_path, NAMES, images="imgs", masks="labels")
    assert len(names_of(folder(tmp_path))[0]) == 14


def test_several_classes_are_read_as_they_are(tmp_path, write_pairs):
    write_pairs(tmp_path, NAMES)
    ids = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16) % 4
    for name in NAMES:
        Image.fromarray(ids).save(tmp_path / "masks" / f"{name}.png")
    data = folder(tmp_path, masks=MaskRule(classes=4), image_size=(12, 16))
    assert data.classes == 4
    np.testing.assert_array_equal(next(iter(data.test_dataloader()))["mask"][0], ids)


def lose_masks(root):
    for file in (root / "masks").iterdir():
        file.unlink()
    (root / "masks").rmdir()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lose_masks, "has no folder named masks|mask|labels|annotations. Put"),
        (lambda root: (root / "masks" / "s03.png").unlink(), "have no mask in .*s03.png"),
        (lambda root: (root / "images" / "s03.png").unlink(), "have no image in .*s03.png"),
        (lambda root: write_split(root, train=["s01", "zz"], test=["s02"]), "absent: zz"),
        (
            lambda root: write_split(root, train=["s01", "s02", "s03"], test=["s02"]),
            "more than once in .*: s02",
        ),
        (lambda root: write_split(root, train=["s01"], val=["s02"]), "splits lacks test.txt"),
        (lambda root: (root / "test").mkdir(), "test has no folder named"),
        (
            lambda root: (root / "images" / "train").mkdir(),
            "has no folder of masks. Put them in .*masks/train",
        ),
    ],
)
def test_bad_folders_are_refused(tmp_path, write_pairs, harm, said):
    write_pairs(tmp_path, NAMES)
    harm(tmp_path)
    with pytest.raises(ValueError, match=said.replace("|", r"\|")):
        folder(tmp_path).prepare_data()


def test_a_part_without_its_counterpart_is_refused(tmp_path, write_pairs):
    write_pairs(tmp_path / "train", "abc")
    with pytest.raises(ValueError, match="has folders for train but none for test"):
        folder(tmp_path).prepare_data()


def test_a_missing_or_empty_root_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere \(`root`\) does not exist"):
        folder(tmp_path / "nowhere").prepare_data()
    with pytest.raises(ValueError, match=r"\(`root`\) is empty"):
        folder(tmp_path).prepare_data()


@pytest.mark.parametrize("holdout", [(0, 0.2), (0.1, 1.0), (0.5, 0.5)])
def test_impossible_fractions_are_refused(tmp_path, holdout):
    with pytest.raises(ValueError, match="`holdout`"):
        folder(tmp_path, holdout=holdout)
