"""Writes predicted masks as images."""

from collections.abc import Sequence
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import Image
from torch import Tensor
from typing_extensions import override

from seg_pruning.surgery.errors import PruningError

from .semantic import Batch, SemanticSegmentation


class MaskWriter(BasePredictionWriter):
    """Writes each predicted mask as ``<name>.png``, at the size that the network saw.

    Pixels hold the class index; of one class, 255 for the foreground, so that it can be seen.

    Args:
        folder: Where to; it is made with the first mask.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(write_interval="batch")
        self.folder = Path(folder)

    @override
    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Tensor,
        batch_indices: Sequence[int] | None,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Writes the masks of a batch."""
        if not isinstance(pl_module, SemanticSegmentation):
            raise PruningError(
                f"Masks are predicted by a SemanticSegmentation, not by a {type(pl_module).__name__}."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        scale = 255 if len(pl_module.classes) == 1 else 1
        for mask, name in zip(prediction, batch["name"], strict=True):
            pixels = (mask * scale).byte().cpu().numpy()
            file = self.folder / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)  # a name may hold the folder of its image
            Image.fromarray(pixels).save(file)
