"""Directional FSC: even where the maps are, and poor where a direction is missing."""
from __future__ import annotations

import numpy as np
import pytest
from finished_maps import falling, filtered, frequencies, pair, white

from swiftres_plugin.engine.maths.geometry import direction_grid
from swiftres_plugin.engine.stages import directional
from swiftres_plugin.engine.stages.directional import cone_correlations, directional_fsc, half_sphere
from swiftres_plugin.engine.stages.postprocess import compute_fsc

BOX, PIXEL_A = 48, 2.0
DIRECTIONS = half_sphere(direction_grid(0.3))
NO_MASK = np.ones((BOX,) * 3, np.float32)


def limited(along_z_a: float, across_a: float) -> np.ndarray:
    """White density inside an ellipsoid of Fourier space."""
    z, y, x = frequencies(BOX, PIXEL_A)
    inside = (z * along_z_a) ** 2 + (y ** 2 + x ** 2) * across_a ** 2 <= 1
    return np.fft.ifftn(np.fft.fftn(white(BOX, 3)) * inside).real


def measured(signal: np.ndarray):
    halves = pair(signal, 0.2, PIXEL_A)
    return directional_fsc(halves, NO_MASK, compute_fsc(halves), DIRECTIONS, 0.143)


def test_half_a_sphere_has_one_of_each_pair():
    grid = direction_grid(0.3)
    half = half_sphere(grid)
    assert len(half) == len(grid) // 2
    assert (half @ half.T).min() > -1 + 1e-6


def test_an_even_map_has_one_resolution():
    """Shell 14 of a box of 96 A is full and 15 empty. With two neighbours 14 holds two thirds, 15 one third, 16 nothing."""
    found = measured(limited(96 / 14.5, 96 / 14.5))
    np.testing.assert_allclose(96 / found.resolution_a, 15.5, atol=0.6)
    assert found.anisotropy < 1.1


def test_an_ellipsoid_is_found_with_its_axes():
    """A cone of 20 degrees looks past its axis, so coarse directions borrow from their neighbours; and neighbouring shells
    lend each other a shell of some sixteen."""
    found = measured(limited(12.0, 6.0))
    along = np.abs(found.direction[:, 2])
    assert found.resolution_a[along > 0.99] == pytest.approx(12.0, rel=0.15)
    assert found.resolution_a[along < 0.15] == pytest.approx(6.0, rel=0.12)
    assert 1.4 < found.anisotropy < 2.0  # the poles themselves are trimmed, and cones blur them


def test_a_missing_cone_is_seen_along_its_axis_only():
    """Views all within 45 degrees of the plane of z leave a cone around z without signal."""
    z, y, x = frequencies(BOX, PIXEL_A)
    seen = np.abs(z) <= np.hypot(x, y) * np.tan(np.deg2rad(45)) + 1e-9
    found = measured(np.fft.ifftn(np.fft.fftn(white(BOX, 3)) * seen).real)
    along = np.abs(found.direction[:, 2])
    assert found.resolution_a[along > np.cos(np.deg2rad(20))].min() > 15
    assert found.resolution_a[along < np.sin(np.deg2rad(20))].max() < 4.5
    assert found.anisotropy > 4


def test_cones_that_cover_everything_give_the_plain_curve(monkeypatch):
    """Of smooth curves: three shells are taken together."""
    monkeypatch.setattr(directional, "CONE_RAD", np.pi / 2 + 0.01)
    halves = pair(filtered(white(BOX, 3), falling(BOX, PIXEL_A, 60.0)), 0.5, PIXEL_A)
    curve = cone_correlations(halves.first.voxels, halves.second.voxels, DIRECTIONS[:1])[0]
    expected = compute_fsc(halves).unmasked
    smooth = np.convolve(expected, np.ones(3) / 3, "same")
    np.testing.assert_allclose(curve[4:-1], smooth[4:-1], atol=0.04)  # the plane x = 0 counts twice there
