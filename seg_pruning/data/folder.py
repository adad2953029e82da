"""A folder of images and masks, in any of the usual layouts."""

from pathlib import Path

import albumentations as A
from typing_extensions import override

from seg_pruning.data.base import BaseDataModule, Parts
from seg_pruning.data.decode import MaskRule
from seg_pruning.data.samples import Arrays, Sample, load_arrays, pair_samples, select
from seg_pruning.data.splits import Split, carve, read_names

IMAGES = ("images", "image", "imgs", "img")
MASKS = ("masks", "mask", "labels", "annotations")
_WANTED = f"Give a folder that holds {IMAGES[0]}/ and {MASKS[0]}/."
PARTS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


def find_folder(parent: Path, names: tuple[str, ...]) -> Path | None:
    """The first of the named sub-folders that is there."""
    return next((parent / name for name in names if (parent / name).is_dir()), None)


def find_pairs(root: Path) -> tuple[Sample, ...]:
    """The samples of a folder that holds one of images and one of masks.

    Raises:
        ValueError: A missing folder, and what `pair_samples` refuses.
    """
    images, masks = find_folder(root, IMAGES), find_folder(root, MASKS)
    if images is None or masks is None:
        wanted = [names for names, found in ((IMAGES, images), (MASKS, masks)) if found is None]
        raise ValueError(
            f"{root} has no folder named {' nor '.join('|'.join(names) for names in wanted)}. Put the images "
            f"in {root / IMAGES[0]} and the masks, under the same names, in {root / MASKS[0]}."
        )
    return pair_samples(images, masks)


def check_root(root: Path) -> Path:
    """The root, if it is a folder with something in it.

    Raises:
        ValueError: It is not.
    """
    if not root.is_dir():
        raise ValueError(f"The data folder {root} (`root`) does not exist. {_WANTED}")
    if not any(root.iterdir()):
        raise ValueError(f"The data folder {root} (`root`) is empty. {_WANTED}")
    return root


def find_parts(root: Path) -> dict[str, tuple[Sample, ...]]:
    """The samples of the sub-folders for train, val and test, of those that are there.

    Both `train/images` and `images/train` are found.
    """
    images, masks = find_folder(root, IMAGES), find_folder(root, MASKS)
    found: dict[str, tuple[Sample, ...]] = {}
    for part, names in PARTS.items():
        if (folder := find_folder(root, names)) is not None:
            found[part] = find_pairs(folder)
        elif images and masks and (of_images := find_folder(images, names)):
            of_masks = find_folder(masks, names)
            if of_masks is None:
                raise ValueError(f"{of_images} has no folder of masks. Put them in {masks / of_images.name}.")
            found[part] = pair_samples(of_images, of_masks)
    return found


class FolderData(BaseDataModule):
    """Images and masks of a folder, whose layout is found by itself.

    - `images/` and `masks/`, split at random (the same each time), or by `splits/train.txt`,
      `splits/val.txt` and `splits/test.txt` with one name a line, of which `val.txt` may be missing;
    - `train/`, `val/` and `test/`, each with `images/` and `masks/`; `val/` may be missing;
    - `images/train/`, `masks/train/` and so on.

    A missing validation part is carved out of training, the same each time.

    Args:
        root: The folder.
        masks: How the pixels of masks become class ids.
        holdout: Fractions of the samples for validation and for test, of those parts that are not given.
        image_size: Height and width of the images, or one number for both; the aspect ratio is not kept.
        batch_size: Images per batch.
        num_workers: Processes that load.
        seed: Decides the order and the augmentation of training; not the split.
        augment: Whether training images are augmented, or the pipeline to do it with.

    Raises:
        ValueError: An argument that cannot be; and at `prepare_data` a missing or empty folder, unpaired,
            unreadable or unequal files, mask values outside the classes, a split that names absent samples.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        masks: MaskRule | None = None,
        holdout: tuple[float, float] = (0.1, 0.2),
        image_size: int | tuple[int, int] = 256,
        batch_size: int = 8,
        num_workers: int = 2,
        seed: int = 0,
        augment: bool | A.Compose = True,
    ) -> None:
        super().__init__(
            image_size=image_size, batch_size=batch_size, num_workers=num_workers, seed=seed, augment=augment
        )
        self.root = Path(root)
        self.rule = MaskRule() if masks is None else masks
        self.classes = self.rule.classes
        if not all(0 < fraction < 1 for fraction in holdout) or sum(holdout) >= 1:
            raise ValueError(
                f"Expected `holdout` to be two fractions in (0, 1) of a sum below 1, but got {holdout}."
            )
        self.holdout = holdout

    @override
    def load_parts(self) -> Parts:
        root = check_root(self.root)
        parts = find_parts(root)
        if parts:
            return self._load(*self._complete(parts))
        samples = find_pairs(root)
        split = self.split(samples)
        return self._load(*(select(samples, names) for names in (split.train, split.val, split.test)))

    def split(self, samples: tuple[Sample, ...]) -> Split:
        """The names of each part: from `splits/` beside the images, else at random."""
        names = [sample.name for sample in samples]
        folder = self.root / "splits"
        if not folder.is_dir():
            rest, test = carve(names, self.holdout[1])
            train, val = carve(rest, self.holdout[0] / (1 - self.holdout[1]))
            return Split(train, val, test)
        split = self._read_split(folder)
        split.check(names, source=folder)
        return split

    def _read_split(self, folder: Path) -> Split:
        files = {part: folder / f"{part}.txt" for part in PARTS}
        missing = [file.name for part, file in files.items() if part != "val" and not file.is_file()]
        if missing:
            raise ValueError(
                f"{folder} lacks {' and '.join(missing)}. Write one name a line into each, or remove the "
                "folder for a random split."
            )
        train, test = read_names(files["train"]), read_names(files["test"])
        if files["val"].is_file():
            return Split(train, read_names(files["val"]), test)
        return Split(*carve(train, self.holdout[0]), test)

    def _complete(self, parts: dict[str, tuple[Sample, ...]]) -> tuple[tuple[Sample, ...], ...]:
        """Samples of train, val and test, the second carved out of the first where it is missing."""
        missing = [part for part in ("train", "test") if part not in parts]
        if missing:
            raise ValueError(
                f"{self.root} has folders for {', '.join(parts)} but none for {' and '.join(missing)}. "
                f"Add them, or put all samples into {IMAGES[0]}/ and {MASKS[0]}/ for a random split."
            )
        if "val" in parts:
            return parts["train"], parts["val"], parts["test"]
        train, val = carve([sample.name for sample in parts["train"]], self.holdout[0])
        return select(parts["train"], train), select(parts["train"], val), parts["test"]

    def _load(self, train: tuple[Sample, ...], val: tuple[Sample, ...], test: tuple[Sample, ...]) -> Parts:
        return load_split(train, val, test, rule=self.rule, size=self.image_size)


def load_split(
    train: tuple[Sample, ...],
    val: tuple[Sample, ...],
    test: tuple[Sample, ...],
    *,
    rule: MaskRule,
    size: tuple[int, int],
) -> Parts:
    """All parts decoded in one go, so that one error tells of all bad files."""
    arrays = load_arrays((*train, *val, *test), rule=rule, size=size)
    first, second = len(train), len(train) + len(val)
    return Parts(
        *(_slice(arrays, span) for span in (slice(first), slice(first, second), slice(second, None)))
    )


def _slice(arrays: Arrays, span: slice) -> Arrays:
    return Arrays(arrays.images[span], arrays.masks[span], arrays.names[span])
