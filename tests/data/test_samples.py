import numpy as np
import pytest
from PIL import Image

from seg_pruning.data.decode import MaskRule
from seg_pruning.data.samples import load_arrays, pair_samples, select


def touch(folder, *names):
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


def test_masks_are_found_by_name_whatever_their_suffix_and_ending(tmp_path):
    images = touch(tmp_path / "i", "b.jpg", "a.JPG", "c.tif", "d_mask.png", "notes.txt", ".hidden.png")
    masks = touch(tmp_path / "m", "a.png", "b_mask.png", "c_segmentation.png", "d_mask.png")
    found = [(sample.name, sample.image.name, sample.mask.name) for sample in pair_samples(images, masks)]
    assert found == [
        ("a", "a.JPG", "a.png"),
        ("b", "b.jpg", "b_mask.png"),
        ("c", "c.tif", "c_segmentation.png"),
        ("d_mask", "d_mask.png", "d_mask.png"),
    ]


@pytest.mark.parametrize(
    ("images", "masks", "said"),
    [
        ([], ["a.png"], "No image in .*i. Put files"),
        (["a.png"], [], "No image in .*m. Put files"),
        (["a.png", "b.png"], ["a.png"], r"1 images in .* have no mask in .*: b\.png\."),
        (["a.png"], ["a.png", "b.png"], r"1 masks in .* have no image in .*: b\.png\."),
        (["a.png", "a.jpg"], ["a.png"], r"1 files in .* have the name of another: a\.png\."),
    ],
)
def test_unpaired_files_are_refused(tmp_path, images, masks, said):
    with pytest.raises(ValueError, match=said):
        pair_samples(touch(tmp_path / "i", *images), touch(tmp_path / "m", *masks))


def test_arrays_hold_the_samples_in_order(tmp_path, write_pairs):
    root = write_pairs(tmp_path, ["b", "a"])
    samples = pair_samples(root / "images", root / "masks")
    arrays = load_arrays(samples, rule=MaskRule(), size=(12, 16))
    assert arrays.names == ("a", "b")
    for index, name in enumerate(arrays.names):
        np.testing.assert_array_equal(
            arrays.images[index], np.asarray(Image.open(root / "images" / f"{name}.png"))
        )
        np.testing.assert_array_equal(
            arrays.masks[index], np.asarray(Image.open(root / "masks" / f"{name}.png")) // 255
        )


def test_one_error_tells_of_all_bad_files_by_kind(tmp_path, write_pairs):
    root = write_pairs(tmp_path, [f"s{number:02d}" for number in range(20)])
    for number in range(12):
        (root / "images" / f"s{number:02d}.png").write_bytes(b"broken")
    Image.fromarray(np.full((12, 16), 7, dtype=np.uint8)).save(root / "masks" / "s15.png")
    with pytest.raises(ValueError, match="12 files that cannot be decoded") as caught:
        load_arrays(pair_samples(root / "images", root / "masks"), rule=MaskRule(), size=(12, 16))
    first, second, remedy = str(caught.value).splitlines()
    assert "s09.png" in first
    assert "s10.png" not in first
    assert first.endswith("and 2 more.")
    assert second.startswith("1 masks with values outside the classes")
    assert "s15.png (values 7)" in second
    assert "0 and 1, or 0 and 255" in remedy


def test_selected_samples_keep_their_order(tmp_path, write_pairs):
    root = write_pairs(tmp_path, "abc")
    samples = pair_samples(root / "images", root / "masks")
    assert [sample.name for sample in select(samples, ["c", "a"])] == ["a", "c"]
