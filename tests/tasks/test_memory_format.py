import lightning as L
import torch

from seg_pruning.tasks import ChannelsLast, SemanticSegmentation
from tests.tasks.tiny import TinyData, TinyNet


class Cutter(L.Callback):
    """Gives the weights back in the usual layout at the start of each epoch, as a cut may."""

    def on_train_epoch_start(self, trainer, pl_module):
        stem = pl_module.network.stem
        stem.weight.data = stem.weight.data.contiguous()


def weights(folder, *callbacks):
    L.seed_everything(0)
    task = SemanticSegmentation(TinyNet(width=8))
    identity = [id(parameter) for parameter in task.parameters()]
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(task, TinyData())
    assert [id(parameter) for parameter in task.parameters()] == identity
    return task


def test_weights_lie_channels_last_even_after_a_cut(tmp_path):
    usual = weights(tmp_path).network.stem.weight
    laid = weights(tmp_path, ChannelsLast(), Cutter()).network.stem.weight
    assert not usual.is_contiguous(memory_format=torch.channels_last)
    assert laid.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(laid, usual)


def test_the_layout_is_handed_on(tmp_path):
    task = weights(tmp_path, ChannelsLast())
    assert task.network.stem(torch.rand(2, 3, 16, 16)).is_contiguous(memory_format=torch.channels_last)
