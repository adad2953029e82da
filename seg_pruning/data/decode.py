"""From files to arrays: what an image and a mask may look like, and what is refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]


class SampleError(ValueError):
    """What is wrong with one sample.

    Args:
        kind: The fault, the same words for all samples that have it.
        detail: The file and what was found in it.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True)
class MaskRule:
    """How the pixels of a mask become class ids.

    Args:
        classes: Number of classes. 1 is background and one foreground: masks hold 0 and 1, or 0 and 255.
            More: the pixels are the ids 0 to `classes - 1`, of which 0 is a class too.
        threshold: For binary masks kept in a lossy format such as JPEG: a grey value above it is foreground,
            in [0, 254].
    """

    classes: int = 1
    threshold: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no mask can hold."""
        if not 1 <= self.classes <= 256:
            raise ValueError(
                f"Expected `classes` to be in 1 to 256 (masks are stored as uint8), but got {self.classes}."
            )
        if self.threshold is not None and (self.classes != 1 or not 0 <= self.threshold <= 254):
            raise ValueError(
                f"Expected `threshold` to be in 0 to 254 and with `classes=1`, but got {self.threshold} with "
                f"`classes={self.classes}`. Leave it out for masks whose pixels are class ids."
            )

    @property
    def legal(self) -> str:
        """The values that a mask may hold, in words.

        Example:
            >>> MaskRule(classes=4).legal
            '0 to 3'
        """
        return "0 and 1, or 0 and 255" if self.classes == 1 else f"0 to {self.classes - 1}"

    def apply(self, values: npt.NDArray[np.integer]) -> Pixels:
        """Class ids `(H, W)` of the grey values of a mask `(H, W)`.

        Raises:
            ValueError: Values that are no class.

        Example:
            >>> MaskRule(threshold=127).apply(np.array([[3, 250]]))
            array([[0, 1]], dtype=uint8)
        """
        if self.threshold is not None:
            return (values > self.threshold).astype(np.uint8)
        if self.classes == 1 and int(values.max()) == 255 and not np.any((values > 0) & (values < 255)):
            return (values > 0).astype(np.uint8)
        if values.min() < 0 or values.max() > max(self.classes - 1, 1):
            raise ValueError(f"values {_outside(values, max(self.classes, 2))}")
        return values.astype(np.uint8)


def _outside(values: npt.NDArray[np.integer], stop: int) -> str:
    """Up to five of the values that are not in `range(stop)`."""
    found = np.unique(values)
    wrong = [int(value) for value in found if not 0 <= value < stop]
    return ", ".join(map(str, wrong[:5])) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")


def read_sample(image: Path, mask: Path, *, rule: MaskRule, size: Sequence[int]) -> tuple[Pixels, Pixels]:
    """The decoded and resized image `(H, W, 3)`, RGB, and mask `(H, W)`, class ids; both uint8.

    Args:
        image: An image file of 8 bits per channel; grey becomes RGB, transparency is dropped.
        mask: A mask file of one channel, or of three equal ones.
        rule: How the mask's pixels become class ids.
        size: `(H, W)` of the result; the aspect ratio is not kept.

    Raises:
        SampleError: A file that cannot be decoded, or whose content is refused.
    """
    pixels, values = _image_pixels(_open(image), image), _mask_values(_open(mask), mask, rule)
    if pixels.shape[:2] != values.shape:
        seen = f"{image} is {_by(pixels.shape)}, {mask} is {_by(values.shape)}"
        raise SampleError("masks of another size than their image (height x width)", seen)
    try:
        ids = rule.apply(values)
    except ValueError as error:
        raise SampleError("masks with values outside the classes", f"{mask} ({error})") from error
    return _resize_image(pixels, size), _resize_mask(ids, size)


def read_image(image: Path, *, size: Sequence[int]) -> Pixels:
    """The decoded and resized image `(H, W, 3)`, RGB, uint8.

    Raises:
        SampleError: A file that cannot be decoded, or of more than 8 bits.
    """
    return _resize_image(_image_pixels(_open(image), image), size)


def check_image(image: Path) -> None:
    """Refuse, after a look at its head only, a file that is no image or of more than 8 bits.

    Raises:
        SampleError: It is such a file.
    """
    try:
        with Image.open(image) as file:
            _check_depth(file, image)
    except (OSError, Image.DecompressionBombError) as error:
        raise SampleError("files that cannot be decoded", f"{image} ({error})") from error


def _by(shape: Sequence[int]) -> str:
    return f"{shape[0]}x{shape[1]}"


def _open(path: Path) -> Image.Image:
    """The whole file decoded, so that a truncated one is found here."""
    try:
        with Image.open(path) as file:
            file.load()
            return file
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SampleError("files that cannot be decoded", f"{path} ({error})") from error


def _check_depth(file: Image.Image, path: Path) -> None:
    if file.mode.startswith(("I", "F")):
        kind = "images of more than 8 bits, whose white point is not known"
        raise SampleError(kind, f"{path} (mode {file.mode})")


def _image_pixels(file: Image.Image, path: Path) -> Pixels:
    _check_depth(file, path)
    return np.asarray(file.convert("RGB"))


def _mask_values(file: Image.Image, path: Path, rule: MaskRule) -> npt.NDArray[np.integer]:
    """The grey values or palette indices of a mask, `(H, W)`."""
    if rule.threshold is not None and not file.mode.startswith(("I", "F")):
        return np.asarray(file.convert("L"))
    if file.mode in ("1", "L", "P") or file.mode.startswith("I"):
        values: npt.NDArray[np.integer] = np.asarray(file).astype(np.int32)
        return values
    channels = np.asarray(file)
    if file.mode == "RGB" and (channels == channels[..., :1]).all():
        grey: npt.NDArray[np.integer] = channels[..., 0]
        return grey
    raise SampleError("masks that are colours and not class ids", f"{path} (mode {file.mode})")


def _resize_image(pixels: Pixels, size: Sequence[int]) -> Pixels:
    """Averaged when it shrinks, bilinear when it grows."""
    shrinks = pixels.shape[0] * pixels.shape[1] > size[0] * size[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (size[1], size[0]), interpolation=how), dtype=np.uint8)


def _resize_mask(ids: Pixels, size: Sequence[int]) -> Pixels:
    how = cv2.INTER_NEAREST_EXACT
    return np.asarray(cv2.resize(ids, (size[1], size[0]), interpolation=how), dtype=np.uint8)
