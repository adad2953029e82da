"""Kvasir-SEG: 1000 colonoscopy images with polyps (Jha et al., MMM 2020, arXiv 1911.07069).

The lists in `lists/` hold names of files only. The images are the creators': for research and education.
"""

from pathlib import Path
from typing import Literal

from typing_extensions import override

from seg_pruning.data.base import BaseDataModule, Parts
from seg_pruning.data.decode import MaskRule
from seg_pruning.data.download import download_archive
from seg_pruning.data.folder import check_root, find_pairs, load_split
from seg_pruning.data.samples import select
from seg_pruning.data.splits import Split, carve, read_names

URL = "https://datasets.simula.no/downloads/kvasir-seg.zip"
ARCHIVE_FOLDER = "Kvasir-SEG"
LISTS = Path(__file__).parent / "lists"


class KvasirSEG(BaseDataModule):
    """Kvasir-SEG in the creators' split (880 and 120) or in that of most polyp papers (PraNet: 900 and 100).

    Neither has a validation part: a tenth of training is carved out, the same each time. Masks are JPEG: a
    grey value above 127 is polyp.

    Args:
        root: The folder with `images/` and `masks/`, or that above it, or where to download to.
        split: The creators' ("official") or PraNet's ("pranet").
        download: Download the official archive if `root` does not exist.
        sha256: The digest that the downloaded archive must have; without it any archive is accepted.
        image_size: Height and width of the images, or one number for both; the aspect ratio is not kept.
        batch_size: Images per batch.
        num_workers: Processes that load.
        seed: Decides the order and the augmentation of training; not the split.

    Raises:
        ValueError: An argument that cannot be; and at `prepare_data` a missing or empty folder, unpaired,
            unreadable or unequal files, images that the split names and that are absent.
    """

    #: The part of training that becomes validation.
    VALIDATION = 0.1

    def __init__(
        self,
        root: str | Path,
        *,
        split: Literal["official", "pranet"] = "pranet",
        download: bool = False,
        sha256: str | None = None,
        image_size: int | tuple[int, int] = 352,
        batch_size: int = 8,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(image_size=image_size, batch_size=batch_size, num_workers=num_workers, seed=seed)
        if split not in ("official", "pranet"):
            raise ValueError(f"Expected `split` to be 'official' or 'pranet', but got {split!r}.")
        self.root = Path(root)
        self.split_name = split
        self.download = download
        self.sha256 = sha256

    @override
    def prepare_data(self) -> None:
        if self.download and not self.root.exists():
            digest = download_archive(URL, self.root, sha256=self.sha256)
            print(f"Kvasir-SEG is in {self.root}; the archive's SHA-256 is {digest}.")
        super().prepare_data()

    @override
    def load_parts(self) -> Parts:
        root = check_root(self.root)
        nested = root / ARCHIVE_FOLDER
        samples = find_pairs(nested if nested.is_dir() else root)
        split = self.split([sample.name for sample in samples])
        parts = (select(samples, names) for names in (split.train, split.val, split.test))
        return load_split(*parts, rule=MaskRule(threshold=127), size=self.image_size)

    def split(self, names: list[str]) -> Split:
        """The names of each part, out of those that are there.

        Raises:
            ValueError: Names of the test part are absent.
        """
        source = LISTS / f"kvasir_{self.split_name}_test.txt"
        test = read_names(source)
        train, val = carve(set(names) - set(test), self.VALIDATION)
        split = Split(train, val, test)
        split.check(names, source=f"the {self.split_name} split of Kvasir-SEG")
        return split
