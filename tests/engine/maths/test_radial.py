"""The radial average: what is the same from everywhere goes, what is not stays."""
from __future__ import annotations

import numpy as np
import pytest

from swiftres_plugin.engine.maths.radial import angular_part

BOXES = [32, 33]


def axes(box: int) -> tuple[np.ndarray, ...]:
    return tuple(np.indices((box,) * 3) - box // 2)


@pytest.mark.parametrize("box", BOXES)
def test_a_hollow_sphere_goes(box):
    """Down to what straight lines between knots a third of a pixel apart leave of a wall two pixels wide."""
    sphere = np.exp(-(np.sqrt(sum(a ** 2 for a in axes(box))) - 10) ** 2 / 8).astype(np.float32)
    assert np.linalg.norm(angular_part(sphere)) < 0.002 * np.linalg.norm(sphere)


@pytest.mark.parametrize("box", BOXES)
def test_what_is_odd_about_the_origin_stays(box):
    z, y, x = axes(box)
    lobes = (x * np.exp(-(x ** 2 + y ** 2 + z ** 2) / 50)).astype(np.float32)
    inner = slice(1, None)  # the first planes of an even box have no counterpart
    np.testing.assert_allclose(angular_part(lobes)[inner, inner, inner], lobes[inner, inner, inner], atol=3e-3 * lobes.max())


@pytest.mark.parametrize("box", BOXES)
def test_what_is_left_has_hardly_a_mean_on_any_sphere(box):
    """Hardly, as spheres a pixel thick are not the knots."""
    noise = np.random.default_rng(1).standard_normal((box,) * 3).astype(np.float32)
    shell = np.sqrt(sum(a ** 2 for a in axes(box))).round().astype(int)
    size = np.bincount(shell.ravel())
    left = np.bincount(shell.ravel(), angular_part(noise).ravel()) / size
    before = np.bincount(shell.ravel(), noise.ravel()) / size
    assert np.linalg.norm(left[3:16]) < 0.25 * np.linalg.norm(before[3:16])
