"""A fit that goes on from a checkpoint sees the images of the epochs that it goes on with."""

import lightning as L
import pytest
from torch import nn

from seg_pruning.data import SyntheticPolyps


class Watcher(L.LightningModule):
    """Learns nothing and notes the images of each epoch."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen = {}

    def training_step(self, batch, batch_idx):
        self.seen.setdefault(self.current_epoch, []).extend(batch["name"])
        return self.layer.weight.sum()

    def configure_optimizers(self):
        return None


def fitted(place, *, workers, epochs, resume=None):
    module = Watcher()
    data = SyntheticPolyps(counts=(8, 2, 2), image_size=16, batch_size=2, num_workers=workers)
    trainer = L.Trainer(
        max_epochs=epochs,
        default_root_dir=place,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data, ckpt_path=resume)
    path = place / f"{epochs}.ckpt"
    trainer.save_checkpoint(path)
    return module.seen, path


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore")
def test_order_after_a_resume_is_that_of_the_epoch(workers, tmp_path):
    whole, _ = fitted(tmp_path, workers=workers, epochs=4)
    _, path = fitted(tmp_path, workers=workers, epochs=2)
    resumed, _ = fitted(tmp_path, workers=workers, epochs=4, resume=path)
    assert resumed == {epoch: whole[epoch] for epoch in (2, 3)}
    assert whole[0] != whole[2]
