import numpy as np
import pytest
import torch
from PIL import Image

from seg_pruning.data import FolderData, ImageFolder, MaskRule
from seg_pruning.data.decode import SampleError


def write_image(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_all_images_below_the_folder_are_given_by_path(tmp_path):
    grey = np.full((6, 6), 90, dtype=np.uint8)
    for name in ("b.png", "a/c.png", "a/d/e.bmp"):
        write_image(tmp_path / name, grey)
    (tmp_path / "notes.txt").touch()
    data = ImageFolder(tmp_path, image_size=(4, 8), batch_size=2, num_workers=0)
    data.prepare_data()
    batches = list(data.predict_dataloader())
    assert [name for batch in batches for name in batch["name"]] == ["a/c", "a/d/e", "b"]
    assert batches[0]["image"].shape == (2, 3, 4, 8)
    assert batches[0]["image"].dtype == torch.float32


def test_images_look_the_same_as_in_training(tmp_path, write_pairs):
    write_pairs(tmp_path, "abcdef")
    labelled = FolderData(tmp_path, masks=MaskRule(), image_size=8, batch_size=1, num_workers=0)
    expected = {batch["name"][0]: batch["image"] for batch in labelled.test_dataloader()}
    found = ImageFolder(tmp_path / "images", image_size=8, batch_size=1, num_workers=0).predict_dataloader()
    images = {batch["name"][0]: batch["image"] for batch in found}
    assert expected
    for name, image in expected.items():
        torch.testing.assert_close(images[name], image, rtol=0, atol=0)


def test_a_missing_or_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere \(`root`\) does not exist"):
        ImageFolder(tmp_path / "nowhere").prepare_data()
    with pytest.raises(ValueError, match="No image below"):
        ImageFolder(tmp_path).prepare_data()


def test_bad_files_are_named_before_anything_is_predicted(tmp_path):
    for number in range(12):
        (tmp_path / f"broken{number:02d}.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"12 files that cannot be decoded: .*broken09.* and 2 more"):
        ImageFolder(tmp_path).prepare_data()


@pytest.mark.parametrize(
    ("names", "dtype", "said"),
    [
        (["a.png", "a.bmp"], np.uint8, "1 images have the name of another"),
        (["a.png"], np.uint16, "more than 8 bits"),
    ],
)
def test_ambiguous_and_deep_images_are_refused(tmp_path, names, dtype, said):
    for name in names:
        write_image(tmp_path / name, np.zeros((4, 4), dtype=dtype))
    with pytest.raises(ValueError, match=said):
        ImageFolder(tmp_path).prepare_data()


def test_a_truncated_file_is_named_when_it_is_read(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    write_image(tmp_path / "a.jpg", noise)
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:2000])
    with pytest.raises(SampleError, match=r"cannot be decoded: .*a\.jpg"):
        list(ImageFolder(tmp_path, num_workers=0).predict_dataloader())
