import numpy as np
import pytest

from seg_pruning.data.scenes import blob_distance, make_grid, make_scene, shade, step


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (80, 48), (17, 23)])
def test_scenes_have_the_asked_size_and_types(size):
    image, mask = make_scene(np.random.default_rng(0), *size)
    assert (image.shape, image.dtype) == ((*size, 3), np.uint8)
    assert (mask.shape, mask.dtype) == (size, np.uint8)
    assert set(np.unique(mask)) <= {0, 1}


def test_the_same_scene_in_finer_pixels_has_its_polyps_in_the_same_places():
    for seed in range(10):
        _, coarse = make_scene(np.random.default_rng(seed), 40, 40)
        _, fine = make_scene(np.random.default_rng(seed), 80, 80)
        averaged = fine.reshape(40, 2, 40, 2).mean(axis=(1, 3))
        assert np.abs(averaged - coarse).mean() < 0.03, f"seed {seed}"


def test_a_round_blob_is_a_disc_of_its_radius():
    grid = make_grid(200, 200)
    distance = blob_distance(np.random.default_rng(0), grid, 0.1, elongation=1, bumps=0)
    assert (distance < 1).mean() == pytest.approx(np.pi * 0.1**2, rel=0.02)


def test_an_elongated_blob_keeps_its_area():
    grid = make_grid(200, 200)
    distance = blob_distance(np.random.default_rng(1), grid, 0.08, elongation=2, bumps=0)
    inside = distance < 1
    assert inside.mean() == pytest.approx(np.pi * 0.08**2, rel=0.03)
    lengths = np.sqrt(np.linalg.eigvalsh(np.cov(np.argwhere(inside).T)))
    assert lengths[1] / lengths[0] == pytest.approx(2, rel=0.05)


def test_a_slope_towards_the_light_is_brighter():
    ramp = np.linspace(0, 0.1, 50)[:, None].repeat(50, axis=1)
    light = np.array([1.0, 0.0])
    assert shade(ramp, light, 1.0).mean() > 1 > shade(-ramp, light, 1.0).mean()
    np.testing.assert_array_equal(shade(np.zeros((5, 5)), light, 1.0), 1)


def test_a_step_does_not_overflow():
    np.testing.assert_allclose(step(np.array([-1e9, 1e9]), 1e-3), [0, 1], atol=1e-9)
