import numpy as np
import pytest
from PIL import Image

from seg_pruning.data.decode import MaskRule, SampleError, read_sample

SIZE = (12, 16)
BLANK = np.zeros(SIZE, dtype=np.uint8)
RAMP = np.linspace(0, 255, 12 * 16).reshape(SIZE).astype(np.uint8)


@pytest.fixture
def sample(tmp_path):
    """Read a pair of pictures that were written to files."""

    def read(image, mask, *, rule=None, size=SIZE, suffix=".png"):
        paths = tmp_path / "image.png", tmp_path / f"mask{suffix}"
        for path, picture in zip(paths, (image, mask), strict=True):
            (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path)
        return read_sample(*paths, rule=MaskRule() if rule is None else rule, size=size)

    return read


def test_grey_becomes_rgb(sample):
    image, _ = sample(RAMP, BLANK)
    np.testing.assert_array_equal(image, np.stack([RAMP] * 3, axis=-1))


def test_transparency_is_dropped(sample):
    rgba = np.random.default_rng(0).integers(0, 256, (*SIZE, 4), dtype=np.uint8)
    image, _ = sample(rgba, BLANK)
    np.testing.assert_array_equal(image, rgba[..., :3])


def test_channels_stay_red_green_blue(sample):
    red = np.zeros((*SIZE, 3), dtype=np.uint8)
    red[..., 0] = 200
    image, _ = sample(red, BLANK)
    assert image[0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize(
    ("mask", "rule"),
    [
        (np.eye(*SIZE, dtype=np.uint8), MaskRule()),
        (np.eye(*SIZE, dtype=np.uint8) * 255, MaskRule()),
        (np.stack([np.eye(*SIZE, dtype=np.uint8)] * 3, axis=-1), MaskRule()),
        (np.eye(*SIZE, dtype=np.uint16), MaskRule()),
        (np.eye(*SIZE, dtype=np.uint8), MaskRule(classes=2)),
        (Image.fromarray(np.eye(*SIZE) > 0), MaskRule()),
        (np.eye(*SIZE, dtype=np.uint8) * 130 + 100, MaskRule(threshold=127)),
    ],
    ids=["0-1", "0-255", "three equal channels", "16 bits", "two classes", "one bit", "threshold"],
)
def test_binary_masks_of_many_kinds_are_one(sample, mask, rule):
    _, ids = sample(RAMP, mask, rule=rule)
    np.testing.assert_array_equal(ids, np.eye(*SIZE, dtype=np.uint8))


def test_a_palette_mask_holds_its_indices_and_not_its_colours(sample):
    ids = np.arange(12 * 16).reshape(SIZE).astype(np.uint8) % 5
    coloured = Image.fromarray(ids, mode="P")
    coloured.putpalette([200, 3, 3, 3, 200, 3, 3, 3, 200, 90, 90, 3, 3, 90, 90])
    _, read = sample(RAMP, coloured, rule=MaskRule(classes=5))
    np.testing.assert_array_equal(read, ids)


def test_a_jpeg_mask_is_cut_at_the_threshold(sample):
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[:, 8:] = 255
    _, ids = sample(RAMP, mask, rule=MaskRule(threshold=127), suffix=".jpg")
    np.testing.assert_array_equal(ids, mask > 0)


@pytest.mark.parametrize(
    ("image", "mask", "rule", "kind"),
    [
        (RAMP.astype(np.uint16), BLANK, MaskRule(), "more than 8 bits"),
        (RAMP, BLANK[:-2], MaskRule(), r"another size.*image\.png is 12x16.*is 10x16"),
        (RAMP, RAMP, MaskRule(), "outside the classes.*values 2, 4, 5, 6, 8 and 185 more"),
        (RAMP, BLANK + 3, MaskRule(classes=3), r"outside the classes.*\(values 3\)"),
        (RAMP, np.eye(*SIZE, dtype=np.uint8) + 254, MaskRule(), "outside the classes"),
        (RAMP, np.stack([RAMP, BLANK, BLANK], axis=-1), MaskRule(), "colours and not class ids"),
    ],
)
def test_what_has_no_meaning_is_refused(sample, image, mask, rule, kind):
    with pytest.raises(SampleError, match=kind):
        sample(image, mask, rule=rule)


@pytest.mark.parametrize("content", [b"", b"not an image", None], ids=["empty", "text", "truncated"])
def test_a_file_that_cannot_be_decoded_is_refused(tmp_path, content):
    image, mask = tmp_path / "image.jpg", tmp_path / "mask.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(image)
    Image.fromarray(noise[..., 0] * 0).save(mask)
    image.write_bytes(image.read_bytes()[:2000] if content is None else content)
    with pytest.raises(SampleError, match=r"cannot be decoded: .*image\.jpg"):
        read_sample(image, mask, rule=MaskRule(), size=(64, 64))


def test_shrinking_averages_the_image_and_keeps_ids_in_the_mask(sample):
    blocks = np.random.default_rng(0).integers(0, 4, (6, 8)).astype(np.uint8)
    mask = blocks.repeat(2, axis=0).repeat(2, axis=1)
    image, ids = sample(RAMP, mask, rule=MaskRule(classes=4), size=(6, 8))
    means = RAMP.reshape(6, 2, 8, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(image[..., 0], means, atol=0.51)
    np.testing.assert_array_equal(ids, blocks)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"classes": 0}, "`classes`.*got 0"),
        ({"classes": 257}, "`classes`.*got 257"),
        ({"threshold": 255}, "`threshold`.*got 255"),
        ({"classes": 3, "threshold": 127}, "`threshold`.*`classes=3`"),
    ],
)
def test_impossible_rules_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        MaskRule(**arguments)
