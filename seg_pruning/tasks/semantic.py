"""Semantic segmentation: a class for each pixel."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Self, TypedDict

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from typing_extensions import override

from seg_pruning.surgery.errors import PruningError

from .base import BaseTask, Location, Scheduler
from .losses import LossName, SegmentationLoss
from .networks import build_network, check_image_size, size_step
from .scores import SegmentationScores


class Batch(TypedDict):
    """A batch of images, with their masks wherever they are known.

    Attributes:
        image: ``(N, C, H, W)`` float32, normalised.
        mask: ``(N, H, W)`` int64, class indices; absent when predicting.
        name: One name for each image.
    """

    image: Tensor
    mask: Tensor
    name: list[str]


class SemanticSegmentation(BaseTask):
    """Trains and tests a network that gives each pixel its class.

    One class means foreground against background: one logit, a sigmoid, threshold 0.5, mask values 0 and 1.
    Several classes mean a softmax over as many logits, the background being one of them where there is one.

    Logs ``train/loss``, and for ``val`` and ``test`` the loss and what `SegmentationScores` gives: Dice and
    IoU averaged over images and over the data set, per class where several, with standard errors over images.
    After a test ``scores["test"].per_image()`` holds the scores of each image, in the order of the data.

    Args:
        arch: An architecture of segmentation_models_pytorch by name, such as ``"unet"``; or any module that
            takes ``(N, C, H, W)`` and gives logits ``(N, classes, H, W)``. With a module, `encoder` means
            nothing.
        encoder: An encoder by name, such as ``"resnet18"``, or ``"tu-<name>"`` for a backbone of timm.
        encoder_weights: Pretrained weights of the encoder by name, such as ``"imagenet"``; ``None`` for
            random ones.
        in_channels: Channels of the image.
        classes: How many, or their names in the order of their indices.
        loss: ``bce``, ``bce_dice``, ``mcc`` (one class), ``ce``, ``ce_dice`` (several), ``dice``, ``focal``,
            ``jaccard``, ``lovasz`` or ``tversky``. For another loss override `configure_losses`.
        optimizer: Makes the optimizer from the parameters.
        scheduler: ``"cosine"`` to 0 over all steps of the fit; or what makes a scheduler from the optimizer;
            or ``None``.

    Raises:
        PruningError: For a name that does not exist, with the nearest ones, before anything is built or
            fetched.
    """

    loss: nn.Module
    scores: nn.ModuleDict

    def __init__(
        self,
        arch: str | nn.Module = "unet",
        *,
        encoder: str = "resnet18",
        encoder_weights: str | None = None,
        in_channels: int = 3,
        classes: int | Sequence[str] = 1,
        loss: LossName = "bce_dice",
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: Scheduler = None,
    ) -> None:
        super().__init__(optimizer=optimizer, scheduler=scheduler)
        self.remember_arguments(arch=arch, optimizer=optimizer, scheduler=scheduler)
        self.classes = _class_names(classes)
        self.loss_name = loss
        self.configure_losses()
        self.configure_metrics()
        if isinstance(arch, nn.Module):
            _check_module(arch, encoder_weights)
            self.network = arch
        else:
            self.network = build_network(
                arch,
                encoder=encoder,
                encoder_weights=encoder_weights,
                in_channels=_at_least_one("in_channels", in_channels),
                classes=len(self.classes),
            )
        self._size_step = size_step(self.network)

    @override
    def configure_losses(self) -> None:
        """Sets `loss`: called with logits ``(N, classes, H, W)`` and masks ``(N, H, W)``, gives a scalar."""
        self.loss = SegmentationLoss(self.loss_name, classes=len(self.classes))

    @override
    def configure_metrics(self) -> None:
        """Sets `scores`, one for ``val`` and one for ``test``."""
        self.scores = nn.ModuleDict({stage: SegmentationScores(self.classes) for stage in ("val", "test")})

    @classmethod
    @override
    def load_from_checkpoint(  # type: ignore[override] # see BaseTask
        cls,
        checkpoint_path: str | Path | IO[bytes],
        map_location: Location = None,
        hparams_file: str | Path | None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **arguments: Any,
    ) -> Self:
        """Gives the task of a checkpoint as `BaseTask` does, and fetches no pretrained weights."""
        arguments.setdefault("encoder_weights", None)  # the checkpoint's own weights replace them at once
        return super().load_from_checkpoint(
            checkpoint_path, map_location, hparams_file, strict, weights_only, **arguments
        )

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Gives the loss of a batch."""
        _, loss = self._logits_and_loss(batch)
        self.log(
            "train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["image"]), sync_dist=True
        )
        self.log("loss", loss, prog_bar=True, logger=False)  # the running value, for the bar only
        return loss

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Counts a batch towards ``val``."""
        self._evaluate(batch, "val")

    @override
    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Counts a batch towards ``test``."""
        self._evaluate(batch, "test")

    @override
    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Gives the masks of a batch, ``(N, H, W)`` int64."""
        return self.to_mask(self._logits(batch["image"]))

    @override
    def on_validation_epoch_start(self) -> None:
        """Forgets the images of the last validation."""
        self._scores("val").reset()

    @override
    def on_test_epoch_start(self) -> None:
        """Forgets the images of the last test."""
        self._scores("test").reset()

    @override
    def on_validation_epoch_end(self) -> None:
        """Logs the scores of the validation."""
        self._log_scores("val")

    @override
    def on_test_epoch_end(self) -> None:
        """Logs the scores of the test; they stay until the next one begins."""
        self._log_scores("test")

    def to_mask(self, logits: Tensor) -> Tensor:
        """Gives class indices ``(N, H, W)`` int64 of logits ``(N, classes, H, W)``."""
        if len(self.classes) == 1:
            return (logits[:, 0] > 0).long()
        return logits.argmax(dim=1)

    def _evaluate(self, batch: Batch, stage: str) -> STEP_OUTPUT:
        logits, loss = self._logits_and_loss(batch)
        self._scores(stage).update(self.to_mask(logits), batch["mask"])
        self.log(f"{stage}/loss", loss, on_epoch=True, batch_size=len(batch["image"]), sync_dist=True)
        return None

    def _log_scores(self, stage: str) -> None:
        for name, value in self._scores(stage).compute().items():
            self.log(f"{stage}/{name}", value, prog_bar=name == "dice", sync_dist=True)

    def _scores(self, stage: str) -> SegmentationScores:
        scores = self.scores[stage]
        assert isinstance(scores, SegmentationScores)
        return scores

    def _logits_and_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        mask = batch["mask"]
        _check_values(mask, classes=len(self.classes))
        logits = self._logits(batch["image"])
        expected = (len(mask), len(self.classes), *mask.shape[-2:])
        if logits.shape != expected:
            raise PruningError(
                f"The network gave logits of shape {tuple(logits.shape)} for masks of shape "
                f"{tuple(mask.shape)} and {len(self.classes)} classes, where {expected} is due: "
                "one channel a class, as high and wide as the mask."
            )
        loss: Tensor = self.loss(logits, mask)
        return logits, loss

    def _logits(self, images: Tensor) -> Tensor:
        check_image_size(images.shape[-2], images.shape[-1], step=self._size_step)
        logits = self(images)
        if not isinstance(logits, Tensor):
            raise PruningError(
                f"The network gave a {type(logits).__name__}, where one tensor of logits (N, classes, H, W) "
                "is due. Wrap it in a module that picks the logits."
            )
        return logits


def _class_names(classes: int | Sequence[str]) -> tuple[str, ...]:
    if isinstance(classes, int):
        return tuple(str(index) for index in range(_at_least_one("classes", classes)))
    names = (classes,) if isinstance(classes, str) else tuple(classes)
    barred = [name for name in names if not name or "/" in name or name in ("se", "dataset")]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or barred or twice:
        raise PruningError(
            "Classes need names that are not empty, differ, hold no '/' and are neither 'se' nor 'dataset' "
            f"(they end the names of metrics); wrong in {list(names)}: {(barred + twice)[:10]}."
        )
    return names


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise PruningError(f"{name} must be 1 or more, not {value}.")
    return value


def _check_module(module: nn.Module, encoder_weights: str | None) -> None:
    if encoder_weights is not None:
        raise PruningError(
            f"encoder_weights={encoder_weights!r} is for an architecture given by name; load the weights "
            f"of a {type(module).__name__} before you hand it over, and leave encoder_weights=None."
        )


def _check_values(mask: Tensor, *, classes: int) -> None:
    largest = max(classes - 1, 1)
    low, high = (int(value) for value in mask.aminmax())
    if low >= 0 and high <= largest:
        return
    wrong = [value for value in torch.unique(mask).tolist() if not 0 <= value <= largest]
    raise PruningError(
        f"Masks hold the values {wrong[:10]}, but a network of {classes} "
        f"{'class' if classes == 1 else 'classes'} knows 0 to {largest} only. "
        "Give the task as many classes as the data has, or map the values in the data."
    )
