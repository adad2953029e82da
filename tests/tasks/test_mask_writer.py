import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from seg_pruning.surgery.errors import PruningError
from seg_pruning.tasks import MaskWriter, SemanticSegmentation
from tests.tasks.tiny import TinyNet


@pytest.mark.parametrize(("classes", "scale"), [(1, 255), (3, 1)])
def test_writes_what_was_predicted(classes, scale, tmp_path):
    task = SemanticSegmentation(TinyNet(classes=classes), classes=classes, loss="dice")
    masks = torch.randint(0, max(classes, 2), (2, 4, 6), generator=torch.Generator().manual_seed(0))
    writer = MaskWriter(tmp_path / "masks")
    writer.write_on_batch_end(None, task, masks, None, {"name": ["a", "case/b"]}, 0, 0)
    for name, mask in zip(("a", "case/b"), masks, strict=True):
        pixels = np.asarray(Image.open(tmp_path / "masks" / f"{name}.png"))
        np.testing.assert_array_equal(pixels, mask.numpy() * scale)


def test_other_modules_are_refused(tmp_path):
    with pytest.raises(PruningError, match="not by a LightningModule"):
        MaskWriter(tmp_path).write_on_batch_end(None, L.LightningModule(), torch.zeros(1), None, {}, 0, 0)
    assert list(tmp_path.iterdir()) == []
