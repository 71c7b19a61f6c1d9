"""Preparations for the pictures."""
import numpy as np
import pytest

from swiftres_plugin.demo.story import most_defocused, scale_to, smoothed


def test_scale_is_recovered_inside():
    random = np.random.default_rng(2)
    truth = random.normal(size=(8, 8, 8))
    inside = random.random(truth.shape) > 0.5
    voxels = np.where(inside, truth / 3, 100.0)
    assert scale_to(voxels, truth, inside) == pytest.approx(3)
    assert scale_to(np.zeros_like(truth), truth, inside) == 0


def test_smoothing_halves_a_wave_at_the_resolution():
    wave = np.cos(2 * np.pi * np.arange(32) * 4 / 32)
    images = np.tile(wave, (1, 32, 1))  # a period of 8 px of 2.5 A
    np.testing.assert_allclose(smoothed(images, 2.5, 20.0), 0.5 * images, atol=1e-12)
    np.testing.assert_allclose(smoothed(np.ones((1, 6, 6)), 2.5, 20.0), 1.0, atol=1e-12)


def test_the_most_defocused_stay_in_order():
    assert most_defocused(np.array([5, 1, 9, 8, 2, 7, 6, 3.0])).tolist() == [0, 2, 3, 5, 6]
