"""Images without masks, to predict on."""

from pathlib import Path
from typing import TypedDict

import lightning as L
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from seg_pruning.data.base import at_least, two_sides
from seg_pruning.data.decode import SampleError, check_image, read_image
from seg_pruning.data.errors import listed, refuse
from seg_pruning.data.samples import SUFFIXES
from seg_pruning.data.transforms import normalise


class Unlabelled(TypedDict):
    """One image: float32 `(3, H, W)`, normalised; its name."""

    image: Tensor
    name: str


class ImageFiles(Dataset[Unlabelled]):
    """Image files that are decoded when they are asked for.

    Args:
        files: The files by the name that their predictions get.
        size: `(H, W)` that they are resized to.
    """

    def __init__(self, files: dict[str, Path], size: tuple[int, int]) -> None:
        self.files = tuple(files.items())
        self.size = size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Unlabelled:
        """The image of an index."""
        name, path = self.files[index]
        return {"image": normalise(read_image(path, size=self.size)), "name": name}


class ImageFolder(L.LightningDataModule):
    """All images below a folder, for `predict`; no masks are needed.

    Batches are `{"image": float32 (N, 3, H, W), "name": list of N}`, normalised as in training. The name is
    the path below `root` without suffix.

    Args:
        root: The folder; its sub-folders are searched too.
        image_size: Height and width that images are resized to, or one number for both: those of training.
        batch_size: Images per batch.
        num_workers: Processes that load.

    Raises:
        ValueError: An argument that cannot be; and at `prepare_data` a missing folder, one without images,
            files that are no images or have the name of another.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        image_size: int | tuple[int, int] = 256,
        batch_size: int = 8,
        num_workers: int = 2,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.image_size = two_sides(image_size)
        self.batch_size = at_least("batch_size", batch_size, 1)
        self.num_workers = at_least("num_workers", num_workers, 0)

    @override
    def prepare_data(self) -> None:
        faults: dict[str, list[str]] = {}
        for path in self.find_files().values():
            try:
                check_image(path)
            except SampleError as error:
                faults.setdefault(error.kind, []).append(error.detail)
        for kind, details in faults.items():
            refuse(kind, details, "Mend these files, or take them out of the folder.")

    def find_files(self) -> dict[str, Path]:
        """The image files by name, sorted by path.

        Raises:
            ValueError: There is no folder, no image in it, or two files of one name.
        """
        if not self.root.is_dir():
            raise ValueError(f"The folder {self.root} (`root`) does not exist. Give a folder with images.")
        paths = [path for path in sorted(self.root.rglob("*")) if path.suffix.lower() in SUFFIXES]
        if not paths:
            raise ValueError(
                f"No image below {self.root}. Put files there that end in {listed(sorted(SUFFIXES))}."
            )
        files: dict[str, Path] = {}
        for path in paths:
            files.setdefault(path.relative_to(self.root).with_suffix("").as_posix(), path)
        doubled = sorted(set(paths) - set(files.values()))
        refuse("images have the name of another", doubled, "Names without suffix must differ: rename them.")
        return files

    @override
    def predict_dataloader(self) -> DataLoader[Unlabelled]:
        dataset = ImageFiles(self.find_files(), self.image_size)
        return DataLoader(dataset, batch_size=self.batch_size, num_workers=self.num_workers)
