import lightning as L
import pytest
import torch

from seg_pruning.pruning import prune_
from seg_pruning.surgery.note import structure_of
from seg_pruning.tasks import PrunableCheckpoints
from tests.tasks.tiny import TinyNet

IMAGE = torch.linspace(-1, 1, 3 * 8 * 8).reshape(1, 3, 8, 8)


class Base(PrunableCheckpoints, L.LightningModule):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.net = TinyNet(width=width)

    def forward(self, images):
        return self.net(images)


class Own(Base):
    """Hooks of its own, which call those of the mixin."""

    def on_save_checkpoint(self, checkpoint):
        super().on_save_checkpoint(checkpoint)
        checkpoint["mine"] = self.net.stem.out_channels

    def on_load_checkpoint(self, checkpoint):
        super().on_load_checkpoint(checkpoint)
        assert self.net.stem.out_channels == checkpoint["mine"]


def written(task: Base) -> dict:
    checkpoint = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    return checkpoint


@pytest.mark.parametrize("kind", [Base, Own])
def test_a_checkpoint_gives_a_module_its_widths_both_ways(kind):
    dense, pruned, other = kind(), kind(), kind()
    prune_(pruned, IMAGE, budget={"params": 0.6})
    for source in (pruned, dense, pruned):
        checkpoint = written(source)
        other.on_load_checkpoint(checkpoint)
        other.load_state_dict(checkpoint["state_dict"])
        torch.testing.assert_close(other(IMAGE), source(IMAGE))
    assert structure_of(other).to_dict() == structure_of(pruned).to_dict()


def test_a_dense_network_adds_nothing_to_its_checkpoint():
    assert set(written(Base())) == {"state_dict"}
