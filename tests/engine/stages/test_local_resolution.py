"""Local resolution: each part of a map gets its own."""
from __future__ import annotations

import numpy as np
import pytest
from finished_maps import falling, filtered, pair, white

from swiftres_plugin.engine.stages.local_resolution import crossing, everywhere, local_resolution, whitened

BOX, PIXEL_A = 64, 2.0


def b_factor_of(resolution_a: float, noise: float) -> float:
    """The B with which a signal of power 1 has FSC 0.5 at this resolution in noise: exp(-B s^2 / 2) = noise^2."""
    return -2 * resolution_a ** 2 * np.log(noise ** 2)


@pytest.mark.parametrize("left_a, right_a", [(6.0, 9.0), (5.0, 14.0)])
def test_two_sides_of_a_box_have_their_own_resolution(left_a, right_a):
    """FSC 0.5 lies where signal and noise have equal power. 8 %: half of what neighbouring bands are apart."""
    noise, signal, axis = 0.2, white(BOX, 3), np.arange(BOX)
    side = 1 / (1 + np.exp(axis - BOX / 2))  # along x
    fine, coarse = (filtered(signal, falling(BOX, PIXEL_A, b_factor_of(r, noise))) for r in (left_a, right_a))
    halves = pair(fine * side + coarse * (1 - side), noise, PIXEL_A)
    found = local_resolution(halves, np.ones((BOX,) * 3, bool), left_a, 0.5)
    assert np.median(found[:, :, 8:20]) == pytest.approx(left_a, rel=0.08)
    assert np.median(found[:, :, -20:-8]) == pytest.approx(right_a, rel=0.08)


def test_nothing_is_finer_than_nyquist_nor_outside_the_support():
    support = np.zeros((BOX,) * 3, bool)
    support[20:40, 20:40, 20:40] = True
    found = local_resolution(pair(white(BOX, 1), 1e-4, PIXEL_A), support, 5.0, 0.5)
    assert found[support].min() >= 2 * PIXEL_A and found[support].max() < 1.1 * 2 * PIXEL_A
    assert np.all(found[~support] == 0)


def test_noise_alone_is_not_resolved():
    """The window holds some tens of coefficients of the coarsest bands, so that a few places pass by chance."""
    found = local_resolution(pair(white(BOX, 1) * 0, 1.0, PIXEL_A), np.ones((BOX,) * 3, bool), 6.0, 0.5)
    assert np.percentile(found, 10) > 20


@pytest.mark.parametrize("box", [24, 25])
def test_whitened_shells_have_equal_power(box):
    spectrum = whitened(filtered(white(box, 2), falling(box, 2.0, 200.0))).abs().numpy() ** 2
    axis = np.fft.fftfreq(box, 1 / box)
    radius = np.round(np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + np.arange(box // 2 + 1) ** 2))
    assert spectrum[0, 0, 0] == 0
    for shell in (1, 5, 11):
        assert spectrum[radius == shell].mean() == pytest.approx(1, abs=0.02)


def test_crossing_is_the_first_and_between_bands():
    curves = np.array([[1.0, 0.9, 1.0], [0.6, 0.4, 1.0], [0.4, 0.8, 1.0]])
    np.testing.assert_allclose(crossing(curves, np.array([4.0, 6.0, 8.0]), 0.5), [7.0, 5.6, 8.0])


def test_values_between_places_are_linear():
    places = np.array([0, 4, 8])
    z, y, x = np.meshgrid(places, places, places, indexing="ij")
    found = everywhere(z + 2.0 * y - x, places, 10)
    z, y, x = (np.clip(a, 0, 8) for a in np.indices((10,) * 3))
    np.testing.assert_allclose(found, z + 2.0 * y - x, atol=1e-9)
