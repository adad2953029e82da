"""Losses by name: those of segmentation_models_pytorch, for one class (sigmoid) and for several (softmax)."""

from collections.abc import Callable
from typing import Literal, get_args

import segmentation_models_pytorch.losses as smp_losses
from torch import Tensor, nn

from seg_pruning.surgery.errors import PruningError

from .names import check_name

LossName = Literal["bce", "bce_dice", "ce", "ce_dice", "dice", "focal", "jaccard", "lovasz", "mcc", "tversky"]

_ONE_CLASS: dict[str, Callable[[], nn.Module]] = {
    "bce": smp_losses.SoftBCEWithLogitsLoss,
    "mcc": smp_losses.MCCLoss,
}
_SEVERAL_CLASSES: dict[str, Callable[[], nn.Module]] = {
    "ce": lambda: smp_losses.SoftCrossEntropyLoss(smooth_factor=0.0)
}
_ANY: dict[str, Callable[[str], nn.Module]] = {
    "dice": smp_losses.DiceLoss,
    "focal": smp_losses.FocalLoss,
    "jaccard": smp_losses.JaccardLoss,
    "lovasz": smp_losses.LovaszLoss,
    "tversky": smp_losses.TverskyLoss,
}


class SegmentationLoss(nn.Module):
    """The sum of the losses that a name stands for, on logits.

    ``bce_dice`` and ``ce_dice`` are sums with equal weights. Dice, Jaccard and Tversky are taken over all
    pixels of the batch, as smp does. Logits are cast to float32 first: sums over pixels lose too much in half
    precision.

    Args:
        name: One of ``bce``, ``bce_dice``, ``mcc`` (one class only), ``ce``, ``ce_dice`` (several only),
            ``dice``, ``focal``, ``jaccard``, ``lovasz``, ``tversky``.
        classes: Number of classes; 1 means one logit with a sigmoid.

    Raises:
        PruningError: If the name does not exist, or not for this number of classes.
    """

    def __init__(self, name: LossName, *, classes: int) -> None:
        super().__init__()
        check_name(name, get_args(LossName), what="loss", listing="")
        self.one_class = classes == 1
        legal = loss_names(classes)
        if name not in legal:
            raise PruningError(
                f"The loss {name!r} is not for {classes} {'class' if self.one_class else 'classes'}. "
                f"Legal: {', '.join(legal)}."
            )
        self.terms = nn.ModuleList(_term(part, one_class=self.one_class) for part in name.split("_"))

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Gives the scalar loss.

        Args:
            logits: ``(N, classes, H, W)``, floating.
            mask: ``(N, H, W)`` int64, class indices; 0 and 1 for one class.
        """
        logits = logits.float()
        target = mask.unsqueeze(1).to(logits.dtype) if self.one_class else mask
        total: Tensor = sum((term(logits, target) for term in self.terms), logits.new_zeros(()))
        return total


def loss_names(classes: int) -> tuple[str, ...]:
    """Gives the names of the losses that exist for this number of classes.

    Example:
        >>> loss_names(3)
        ('ce', 'ce_dice', 'dice', 'focal', 'jaccard', 'lovasz', 'tversky')
    """
    barred = {"ce", "ce_dice"} if classes == 1 else {"bce", "bce_dice", "mcc"}
    return tuple(name for name in get_args(LossName) if name not in barred)


def _term(name: str, *, one_class: bool) -> nn.Module:
    if name in _ANY:
        return _ANY[name]("binary" if one_class else "multiclass")
    return (_ONE_CLASS if one_class else _SEVERAL_CLASSES)[name]()
