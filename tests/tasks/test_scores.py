import numpy as np
import pytest
import torch

from seg_pruning.tasks.scores import SegmentationScores, dice_and_iou


def oracle(predicted, mask, classes):
    """Dice and IoU by sets of pixels, `(images, classes, 2)` and `(classes, 2)`; one class: foreground."""
    indices = [1] if classes == 1 else range(classes)

    def both(a, b):
        overlap, union, sizes = (a & b).sum(), (a | b).sum(), a.sum() + b.sum()
        return (2 * overlap / sizes, overlap / union) if union else (1.0, 1.0)

    images = np.array([[both(p == k, m == k) for k in indices] for p, m in zip(predicted, mask, strict=True)])
    whole = np.array([both(predicted == k, mask == k) for k in indices])
    return images, whole


def masks(classes, seed):
    generator = np.random.default_rng(seed)
    predicted, mask = generator.integers(0, max(classes, 2), (2, 7, 5, 6))
    mask[0] = predicted[0] = 0  # nothing in mask nor prediction
    mask[1] = 0  # false positives only
    predicted[2] = 0  # all missed
    return predicted, mask


def scored(predicted, mask, names, batch):
    scores = SegmentationScores(names)
    for start in range(0, len(mask), batch):
        part = slice(start, start + batch)
        scores.update(torch.from_numpy(predicted[part]), torch.from_numpy(mask[part]))
    return scores


@pytest.mark.parametrize("names", [("polyp",), ("a", "b"), ("a", "b", "c", "d")], ids=len)
@pytest.mark.parametrize("batch", [1, 3, 7])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_sets_of_pixels(names, batch, seed):
    predicted, mask = masks(len(names), seed)
    images, whole = oracle(predicted, mask, len(names))
    scores = scored(predicted, mask, names, batch)
    got = {name: value.item() for name, value in scores.compute().items()}
    for index, name in enumerate(("dice", "iou")):
        per_image = images[:, :, index].mean(1)
        assert got[name] == pytest.approx(per_image.mean())
        assert got[f"{name}_se"] == pytest.approx(per_image.std(ddof=1) / np.sqrt(7))
        assert got[f"{name}_dataset"] == pytest.approx(whole[:, index].mean())
        np.testing.assert_allclose(scores.per_image()[name], per_image)
        for k, label in enumerate(names if len(names) > 1 else ()):
            assert got[f"{name}_{label}"] == pytest.approx(images[:, k, index].mean())
            assert got[f"{name}_dataset_{label}"] == pytest.approx(whole[k, index])
    extra = 8 * len(names) // 2 if len(names) > 1 else 0
    assert len(got) == 7 + extra


def test_empty_masks():
    """Rightly left empty: 1. A false positive on an empty mask: 0. Both count in the mean over images."""
    mask = torch.zeros(2, 4, 4, dtype=torch.long)
    predicted = mask.clone()
    predicted[1, 0, 0] = 1
    scores = SegmentationScores(("polyp",))
    scores.update(predicted, mask)
    assert scores.per_image()["dice"].tolist() == [1.0, 0.0]
    got = scores.compute()
    assert (got["dice"], got["iou"], got["dice_dataset"], got["empty"]) == (0.5, 0.5, 0.0, 0.5)


def test_a_single_image_has_no_standard_error():
    scores = SegmentationScores(("polyp",))
    scores.update(torch.ones(1, 2, 2).long(), torch.ones(1, 2, 2).long())
    got = scores.compute()
    assert got["dice"] == 1
    assert got["dice_se"].isnan()


def test_counts_do_not_saturate():
    """In float32 2 ** 24 + 1 is 2 ** 24, and a data set has more pixels than that."""
    dice, iou = dice_and_iou(torch.tensor([2**24 + 1, 1, 0]))
    assert iou.item() == (2**24 + 1) / (2**24 + 2)
    assert dice.item() == (2**25 + 2) / (2**25 + 3)
