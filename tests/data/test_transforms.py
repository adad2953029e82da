import os
import subprocess
import sys

import albumentations as A
import numpy as np
import pytest
import torch
from torchvision.transforms.functional import normalize

from seg_pruning.data.transforms import Augmentation, default_augmentation, normalise

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
MASK = (IMAGE[..., 0] > 128).astype(np.uint8)


def test_the_seed_decides_whatever_was_drawn_before():
    first, second = Augmentation(default_augmentation()), Augmentation(default_augmentation())
    for seed in range(5):
        second(IMAGE, MASK, seed)
    expected, drawn = first(IMAGE, MASK, 7), second(IMAGE, MASK, 7)
    np.testing.assert_array_equal(drawn[0], expected[0])
    np.testing.assert_array_equal(drawn[1], expected[1])


def test_other_seeds_give_other_pictures():
    augmentation = Augmentation(default_augmentation())
    pictures = {augmentation(IMAGE, MASK, seed)[0].tobytes() for seed in range(20)}
    assert len(pictures) > 15


def test_the_steps_of_a_pipeline_are_drawn_apart():
    augmentation = Augmentation(A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]))
    pictures = [augmentation(IMAGE, MASK, seed)[0].tobytes() for seed in range(400)]
    choices = (IMAGE, IMAGE[:, ::-1], IMAGE[::-1], IMAGE[::-1, ::-1])
    for choice in choices:
        assert 60 < pictures.count(choice.tobytes()) < 140  # 100 expected, with a standard deviation of 9


def test_the_mask_moves_with_the_image():
    disc = (np.hypot(*np.mgrid[-32:32, -32:32] - np.array([10, -8])[:, None, None]) < 12).astype(np.uint8)
    augmentation = Augmentation(default_augmentation())
    for seed in range(20):
        image, mask = augmentation(np.stack([disc * 200] * 3, axis=-1), disc, seed)
        agree = (image.max(axis=-1) > 100) == (mask > 0)
        assert agree.mean() > 0.98, f"seed {seed}"
        assert mask.max() == 1, f"seed {seed}"


def test_a_pipeline_that_changes_the_size_is_refused():
    with pytest.raises(ValueError, match=r"made \(8, 8\) of an image of \(24, 32\)"):
        Augmentation(A.Compose([A.CenterCrop(8, 8)]))(IMAGE, MASK, 0)


def test_normalisation_is_that_of_torchvision():
    scaled = torch.from_numpy(IMAGE).permute(2, 0, 1).float() / 255
    expected = normalize(scaled, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(normalise(IMAGE), expected)


def test_importing_asks_the_network_for_nothing():
    program = """
import socket
def refuse(*_args):
    raise AssertionError("asked the network")
socket.getaddrinfo = refuse
import seg_pruning.data.folder
"""
    plain = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    command = [sys.executable, "-W", "error::UserWarning", "-c", program]
    subprocess.run(command, env=plain, check=True, timeout=120)
