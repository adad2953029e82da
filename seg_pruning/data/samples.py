"""Pairs of an image and its mask: found in folders, then all decoded once."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from seg_pruning.data.decode import MaskRule, Pixels, SampleError, read_sample
from seg_pruning.data.errors import listed, refuse

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
MASK_ENDINGS = ("_mask", "_segmentation")


@dataclass(frozen=True)
class Sample:
    """One image file and its mask file, under the image's name without suffix."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Arrays:
    """Decoded samples in memory.

    Args:
        images: uint8 RGB, `(N, H, W, 3)`.
        masks: uint8 class ids, `(N, H, W)`.
        names: N names.
    """

    images: Tensor
    masks: Tensor
    names: tuple[str, ...]


def pair_samples(images: Path, masks: Path) -> tuple[Sample, ...]:
    """The samples of a folder of images and a folder of masks, sorted by name.

    A mask is named like its image; another suffix, and `_mask` or `_segmentation` at the end, are allowed.

    Raises:
        ValueError: A folder without images, two files of one name, an image without a mask, a mask without
            an image.
    """
    image_files = _by_name(images, _stem)
    mask_files = _by_name(masks, lambda path: _mask_name(path, image_files))
    refuse(
        f"images in {images} have no mask in {masks}",
        [image_files[name].name for name in image_files if name not in mask_files],
        "Each image needs a mask of the same name: add the masks, or take the images away.",
    )
    refuse(
        f"masks in {masks} have no image in {images}",
        [mask_files[name].name for name in mask_files if name not in image_files],
        "Each mask needs an image of the same name: add the images, or take the masks away.",
    )
    return tuple(Sample(name, image_files[name], mask_files[name]) for name in sorted(image_files))


def _stem(path: Path) -> str:
    return path.stem


def _mask_name(path: Path, images: dict[str, Path]) -> str:
    """The name of the image that a mask belongs to."""
    shortened = (path.stem.removesuffix(end) for end in MASK_ENDINGS)
    return next((name for name in (path.stem, *shortened) if name in images), path.stem)


def _by_name(folder: Path, name: Callable[[Path], str]) -> dict[str, Path]:
    """The image files of a folder by sample name."""
    files = [
        path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES and path.name[0] != "."
    ]
    if not files:
        raise ValueError(f"No image in {folder}. Put files there that end in {listed(sorted(SUFFIXES))}.")
    found: dict[str, Path] = {}
    for path in files:
        found.setdefault(name(path), path)
    doubled = [path.name for path in files if found[name(path)] != path]
    refuse(
        f"files in {folder} have the name of another",
        doubled,
        "Names without suffix must differ: rename them.",
    )
    return found


def load_arrays(samples: Sequence[Sample], *, rule: MaskRule, size: tuple[int, int]) -> Arrays:
    """All samples decoded and resized to `size` (height, width), with a progress bar.

    Raises:
        ValueError: Files that cannot be used: one line for each kind of fault, with up to ten of the files.
    """
    images = np.empty((len(samples), *size, 3), dtype=np.uint8)
    masks = np.empty((len(samples), *size), dtype=np.uint8)
    faults: dict[str, list[str]] = {}

    def read(sample: Sample) -> tuple[Pixels, Pixels] | SampleError:
        try:
            return read_sample(sample.image, sample.mask, rule=rule, size=size)
        except SampleError as error:
            return error

    with ThreadPoolExecutor(cpu_count()) as pool:
        results = pool.map(read, samples)
        for index, result in enumerate(track(results, "Reading images", len(samples), transient=True)):
            if isinstance(result, SampleError):
                faults.setdefault(result.kind, []).append(result.detail)
            else:
                images[index], masks[index] = result
    _refuse_all(faults, rule)
    return Arrays(torch.from_numpy(images), torch.from_numpy(masks), tuple(sample.name for sample in samples))


def _refuse_all(faults: dict[str, list[str]], rule: MaskRule) -> None:
    """One error about all faults."""
    if not faults:
        return
    lines = [f"{len(files)} {kind}: {listed(files)}." for kind, files in faults.items()]
    raise ValueError(
        "\n".join(lines) + f"\nExpected 8-bit images, and masks of the same size with the values {rule.legal}"
        f" ({rule}). Mend or remove the files, or choose other `classes`; `threshold: 127` reads binary masks"
        " in a lossy format."
    )


def select(samples: Iterable[Sample], names: Iterable[str]) -> tuple[Sample, ...]:
    """The samples of the given names, in the samples' order."""
    wanted = frozenset(names)
    return tuple(sample for sample in samples if sample.name in wanted)
