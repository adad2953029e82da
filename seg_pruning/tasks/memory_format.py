"""Channels last in memory: the layout for which convolutions are fastest on CPUs and on tensor cores."""

from collections.abc import Mapping

import lightning as L
import torch
from torch import Tensor
from typing_extensions import override


class ChannelsLast(L.Callback):
    """Keeps a network's weights in ``torch.channels_last``, also after they were cut.

    A convolution computes in the layout of its weights and hands it on with its output, so images need no
    change. Values, shapes and the identity of parameters stay as they are.
    """

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Lays out the weights before the first batch of any kind."""
        pl_module.to(memory_format=torch.channels_last)

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Mapping[str, Tensor], batch_idx: int
    ) -> None:
        """Lays them out again once an epoch, when whatever cuts them at its start is done."""
        if batch_idx == 0:
            pl_module.to(memory_format=torch.channels_last)
