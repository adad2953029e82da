"""Dice and IoU, per image and over the data set, from one count of pixels and by one rule.

torchmetrics counts the pixels. Its own Dice and mean IoU are not used: they leave out images in which a class
is absent from both mask and prediction, so that two networks are averaged over different images, and IoU has
no average over the data set.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_stat_scores
from torchmetrics.utilities import dim_zero_cat


def count_pixels(predicted: Tensor, mask: Tensor, *, classes: int) -> Tensor:
    """Gives the true positive, false positive and false negative pixels per image and class.

    Int64 ``(N, classes, 3)``, in that order.

    Args:
        predicted: ``(N, H, W)`` int64, class indices; 0 and 1 when `classes` is 1, and then only 1 is
            counted.
        mask: The same for the truth.
        classes: Number of classes.

    Example:
        >>> count_pixels(torch.tensor([[[1, 1]]]), torch.tensor([[[1, 0]]]), classes=1).tolist()
        [[[1, 1, 0]]]
    """
    counts = multiclass_stat_scores(
        predicted,
        mask,
        num_classes=max(classes, 2),  # also for one class: the binary form fails on a batch of one image
        average="none",
        multidim_average="samplewise",
        validate_args=False,  # it would wait for the device; the task checks the values of masks itself
    )
    return counts[:, -classes:, [0, 1, 3]]  # torchmetrics gives tp, fp, tn, fn, support


def dice_and_iou(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Gives Dice = 2 tp / (2 tp + fp + fn) and IoU = tp / (tp + fp + fn), float64 in [0, 1].

    The rule for empty masks: a class that is in neither the mask nor the prediction scores 1, for it was
    answered rightly; a false positive on an empty mask scores 0.

    Args:
        counts: ``(..., 3)`` from `count_pixels`, or a sum of such.

    Example:
        >>> dice_and_iou(torch.tensor([[1, 1, 0], [0, 0, 0]]))
        (tensor([0.6667, 1.0000], dtype=torch.float64), tensor([0.5000, 1.0000], dtype=torch.float64))
    """
    hit, wrong = counts[..., 0].double(), counts[..., 1:].sum(-1).double()
    empty = (hit + wrong) == 0
    dice = (2 * hit / (2 * hit + wrong)).masked_fill(empty, 1.0)
    iou = (hit / (hit + wrong)).masked_fill(empty, 1.0)
    return dice, iou


class SegmentationScores(Metric):
    """Dice and IoU of masks, each averaged in the two ways that papers use.

    ``dice``, ``iou``: computed in each image, averaged over the images. ``dice_dataset``, ``iou_dataset``:
    computed once from the pixels of the whole data set. With several classes each is the plain mean over all
    classes, the first one included, and each class has its own ``dice_<class>``, ``iou_<class>``,
    ``dice_dataset_<class>``, ``iou_dataset_<class>``. ``dice_se`` and ``iou_se`` are standard errors over
    images (nan for a single one). ``empty`` is the share of image-class pairs that scored 1 because the class
    is in neither mask nor prediction: high values say that the average over images flatters.

    Args:
        classes: Names of the classes, in the order of their indices; one name means foreground against
            background.
    """

    full_state_update = False
    higher_is_better = True
    counts: list[Tensor] | Tensor

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.add_state("counts", default=[], dist_reduce_fx="cat")

    def update(self, predicted: Tensor, mask: Tensor) -> None:
        """Takes a batch of masks, both ``(N, H, W)`` int64."""
        assert isinstance(self.counts, list)  # only a synchronised state is a tensor, and that is not updated
        self.counts.append(count_pixels(predicted, mask, classes=len(self.classes)))

    def compute(self) -> dict[str, Tensor]:
        """Gives the scores by name, each a float32 scalar."""
        # On the CPU, since not every device knows float64, and float32 cannot tell 2 ** 24 from one more.
        counts = dim_zero_cat(self.counts).cpu()
        scores: dict[str, Tensor] = {"empty": (counts.sum(-1) == 0).double().mean()}
        images, whole = dice_and_iou(counts), dice_and_iou(counts.sum(0))
        for name, per_image, dataset in zip(("dice", "iou"), images, whole, strict=True):
            scores[name] = per_image.mean()
            scores[f"{name}_se"] = _standard_error(per_image.mean(1))
            scores[f"{name}_dataset"] = dataset.mean()
            if len(self.classes) > 1:
                scores |= _by_class(name, self.classes, per_image.mean(0))
                scores |= _by_class(f"{name}_dataset", self.classes, dataset)
        return {name: value.float() for name, value in scores.items()}

    def per_image(self) -> dict[str, Tensor]:
        """Gives each image's ``dice`` and ``iou``, float64 ``(images,)``, the mean over its classes."""
        dice, iou = dice_and_iou(dim_zero_cat(self.counts).cpu())
        return {"dice": dice.mean(1), "iou": iou.mean(1)}


def _by_class(name: str, classes: Sequence[str], values: Tensor) -> dict[str, Tensor]:
    return {f"{name}_{label}": value for label, value in zip(classes, values, strict=True)}


def _standard_error(values: Tensor) -> Tensor:
    if len(values) < 2:
        return values.new_tensor(torch.nan)
    error: Tensor = values.std() / len(values) ** 0.5
    return error
