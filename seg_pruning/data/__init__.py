"""On what networks train: Lightning data modules.

One file per data set; what they share is in `base`. Files become arrays in `decode` and `samples`, arrays
become items in `dataset`, and `transforms` is what happens in between. A new data set needs `load_parts`
only, and its name below, by which the command line knows it.
"""

import os

# Before any import of albumentations, which otherwise asks the network for a newer version and waits for it.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from seg_pruning.data.base import BaseDataModule
from seg_pruning.data.decode import MaskRule
from seg_pruning.data.folder import FolderData
from seg_pruning.data.images import ImageFolder
from seg_pruning.data.kvasir import KvasirSEG
from seg_pruning.data.synthetic import SyntheticPolyps

__all__ = ["BaseDataModule", "FolderData", "ImageFolder", "KvasirSEG", "MaskRule", "SyntheticPolyps"]
