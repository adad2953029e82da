import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from seg_pruning.data import KvasirSEG, kvasir
from seg_pruning.data.splits import read_names

COUNTS = {"official": (792, 88, 120), "pranet": (810, 90, 100)}
LISTS = {
    "official": ("official880_train", "official120_val"),
    "pranet": ("pranet_train900", "pranet_test100"),
}


@pytest.fixture
def all_names():
    """Names like those of the 1000 images: both test parts, and others to train on."""
    held_out = {name for split in COUNTS for name in read_names(kvasir.LISTS / f"kvasir_{split}_test.txt")}
    return sorted(held_out | {f"other{number:04d}" for number in range(1000 - len(held_out))})


@pytest.mark.parametrize("split", COUNTS)
def test_parts_have_the_published_sizes_and_share_nothing(tmp_path, all_names, split):
    parts = KvasirSEG(tmp_path, split=split).split(all_names)
    assert (len(parts.train), len(parts.val), len(parts.test)) == COUNTS[split]
    assert sorted(parts.train + parts.val + parts.test) == all_names


@pytest.mark.parametrize("split", COUNTS)
def test_the_seed_of_a_run_does_not_move_the_validation_part(tmp_path, all_names, split):
    one, two = KvasirSEG(tmp_path, split=split), KvasirSEG(tmp_path, split=split, seed=9)
    assert one.split(all_names) == two.split(all_names)


@pytest.mark.parametrize("split", COUNTS)
def test_parts_of_the_real_images_are_those_of_the_published_lists(kvasir_root, split):
    names = [path.stem for path in (kvasir_root / "images").iterdir()]
    parts = KvasirSEG(kvasir_root, split=split).split(names)
    train, test = (read_names(kvasir_root / "splits" / f"{name}.txt") for name in LISTS[split])
    assert sorted(parts.train + parts.val) == sorted(train)
    assert sorted(parts.test) == sorted(test)


def test_real_masks_are_read_as_the_creators_mean_them(kvasir_root):
    data = KvasirSEG(kvasir_root, image_size=(60, 80), num_workers=0)
    test = data.parts.test
    assert set(test.masks.unique().tolist()) == {0, 1}
    for index in range(0, len(test.names), 10):
        grey = np.asarray(Image.open(kvasir_root / "masks" / f"{test.names[index]}.jpg").convert("L"))
        assert test.masks[index].float().mean().item() == pytest.approx((grey > 127).mean(), abs=0.01)


def test_absent_images_of_the_split_are_named(tmp_path, all_names):
    data = KvasirSEG(tmp_path, split="official")
    absent = read_names(kvasir.LISTS / "kvasir_official_test.txt")[:12]
    with pytest.raises(ValueError, match=r"12 samples of the test part of the official split") as caught:
        data.split([name for name in all_names if name not in absent])
    assert absent[9] in str(caught.value)
    assert absent[10] not in str(caught.value)


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'official' or 'pranet', but got 'polyps'"):
        KvasirSEG(tmp_path, split="polyps")


def make_archive(names):
    """An archive laid out like the official one, with tiny pictures."""
    picture, content = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), 255, dtype=np.uint8)).save(picture, "JPEG")
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("Kvasir-SEG/kavsir_bboxes.json", "{}")
        for name in names:
            archive.writestr(f"Kvasir-SEG/images/{name}.jpg", picture.getvalue())
            archive.writestr(f"Kvasir-SEG/masks/{name}.jpg", picture.getvalue())
    return content.getvalue()


def test_download_makes_the_data_ready_once(tmp_path, all_names, serve, monkeypatch, capsys):
    monkeypatch.setattr(kvasir, "URL", serve(make_archive(all_names)))
    root = tmp_path / "kvasir_seg"
    data = KvasirSEG(root, download=True, image_size=4, num_workers=0)
    data.prepare_data()
    assert len(data.parts.test.names) == 100
    assert "SHA-256" in capsys.readouterr().out
    monkeypatch.setattr(kvasir, "URL", "http://127.0.0.1:1/gone.zip")
    again = KvasirSEG(root, download=True, image_size=4, num_workers=0)
    again.prepare_data()
    assert again.parts.train.names == data.parts.train.names


def test_a_download_with_another_digest_leaves_nothing(tmp_path, all_names, serve, monkeypatch):
    monkeypatch.setattr(kvasir, "URL", serve(make_archive(all_names[:1])))
    data = KvasirSEG(tmp_path / "data" / "kvasir_seg", download=True, sha256="ab" * 32)
    with pytest.raises(ValueError, match="but abab"):
        data.prepare_data()
    assert list((tmp_path / "data").iterdir()) == []
