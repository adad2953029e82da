import pytest
import torch
from torch.nn import functional as F

from seg_pruning.surgery.errors import PruningError
from seg_pruning.tasks.losses import SegmentationLoss, loss_names


def batch(classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, classes, 4, 5, generator=generator)
    return logits, torch.randint(0, max(classes, 2), (3, 4, 5), generator=generator)


def soft_dice(logits, mask):
    """One minus the overlap of probabilities and mask over all pixels of the batch, mean over the classes."""
    if logits.shape[1] == 1:
        pairs = [(logits[:, 0].sigmoid(), mask == 1)]
    else:
        pairs = [(logits.softmax(1)[:, k], mask == k) for k in range(logits.shape[1])]
    return sum(1 - 2 * (p * m).sum() / (p.sum() + m.sum()) for p, m in pairs) / len(pairs)


def cross_entropy(logits, mask):
    if logits.shape[1] == 1:
        p = logits[:, 0].sigmoid()
        return -torch.where(mask == 1, p, 1 - p).log().mean()
    return -logits.log_softmax(1).gather(1, mask[:, None]).mean()


@pytest.mark.parametrize(
    ("name", "classes", "terms"),
    [
        ("bce", 1, [cross_entropy]),
        ("bce_dice", 1, [cross_entropy, soft_dice]),
        ("dice", 1, [soft_dice]),
        ("ce", 3, [cross_entropy]),
        ("ce_dice", 3, [cross_entropy, soft_dice]),
        ("dice", 3, [soft_dice]),
    ],
)
def test_equals_the_formula(name, classes, terms):
    logits, mask = batch(classes)
    expected = sum(term(logits, mask) for term in terms)
    torch.testing.assert_close(SegmentationLoss(name, classes=classes)(logits, mask), expected)


@pytest.mark.parametrize(("name", "classes"), [(name, k) for k in (1, 3) for name in loss_names(k)])
def test_every_loss_falls_when_it_is_followed(name, classes):
    logits, mask = batch(classes)
    loss = SegmentationLoss(name, classes=classes)
    logits.requires_grad_()
    before = loss(logits, mask)
    (gradient,) = torch.autograd.grad(before, logits)
    assert before.ndim == 0
    assert loss(logits - gradient / gradient.norm() * 0.1, mask) < before


def test_half_precision_is_summed_in_float32():
    logits, mask = batch(1)
    loss = SegmentationLoss("bce_dice", classes=1)(logits.bfloat16(), mask)
    assert loss.dtype == torch.float32
    expected = F.binary_cross_entropy_with_logits(logits.bfloat16().float()[:, 0], mask.float())
    torch.testing.assert_close(loss, expected + soft_dice(logits.bfloat16().float(), mask))


@pytest.mark.parametrize(
    ("name", "classes", "message"),
    [
        ("dise", 1, r"'dise' is no loss\. Nearest: dice"),
        ("ce", 1, r"'ce' is not for 1 class\. Legal: bce, bce_dice"),
        ("bce_dice", 3, r"'bce_dice' is not for 3 classes\. Legal: ce, ce_dice"),
    ],
)
def test_refuses(name, classes, message):
    with pytest.raises(PruningError, match=message):
        SegmentationLoss(name, classes=classes)
