import numpy as np
import torch

from seg_pruning.data import SyntheticPolyps
from seg_pruning.data.synthetic import generate


def test_a_picture_follows_from_its_numbers_alone():
    few, many = generate(3, 1, 2, (32, 48)), generate(3, 1, 5, (32, 48))
    torch.testing.assert_close(few.images, many.images[:2])
    torch.testing.assert_close(few.masks, many.masks[:2])
    assert few.names == many.names[:2]


def test_parts_and_seeds_differ():
    pictures = [generate(seed, part, 3, (32, 48)).images for seed in (0, 1) for part in (0, 1, 2)]
    flat = torch.cat(pictures).flatten(1)
    assert len(torch.unique(flat, dim=0)) == 18


def test_the_parts_have_the_asked_sizes():
    data = SyntheticPolyps(counts=(5, 3, 2), image_size=(32, 48))
    assert [len(part.names) for part in (data.parts.train, data.parts.val, data.parts.test)] == [5, 3, 2]
    assert data.parts.val.images.shape == (3, 32, 48, 3)
    assert data.parts.val.masks.shape == (3, 32, 48)
    assert data.classes == 1


def dice(prediction, target):
    """Of all pixels together."""
    return 2 * float((prediction & target).sum()) / float(prediction.sum() + target.sum())


def test_polyps_can_be_seen_but_not_by_colour_alone():
    arrays = generate(0, 0, 100, (64, 64))
    masks = arrays.masks.numpy() > 0
    assert 0.05 < masks.mean() < 0.2
    assert 1 <= (~masks.any(axis=(1, 2))).sum() <= 25
    red, green, _ = np.moveaxis(arrays.images.numpy().astype(np.float64), -1, 0)
    redness = red / (green + 20)
    assert redness[masks].mean() > redness[~masks].mean() * 1.1
    best = max(dice(redness > cut, masks) for cut in np.quantile(redness, np.linspace(0.5, 0.99, 50)))
    nothing_learned = dice(np.ones_like(masks), masks)
    assert nothing_learned < best < 0.65
