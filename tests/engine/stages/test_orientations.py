"""The efficiency of an orientation distribution: what is known of a few of them."""
from __future__ import annotations

import numpy as np
import pytest
from scipy.special import dawsn, i0e

from swiftres_plugin.engine.maths.geometry import direction_grid, random_rotations
from swiftres_plugin.engine.maths.symmetry import symmetry_operators
from swiftres_plugin.engine.postprocess import orientation_coverage
from swiftres_plugin.engine.stages.orientations import coverage

DIRECTIONS = direction_grid(0.3)
EVEN = direction_grid(0.1)


def tilted(angles_rad: np.ndarray, seed: int = 1) -> np.ndarray:
    """Beam directions at these angles from z."""
    turn = np.random.default_rng(seed).uniform(0, 2 * np.pi, len(angles_rad))
    return np.stack([np.sin(angles_rad) * np.cos(turn), np.sin(angles_rad) * np.sin(turn), np.cos(angles_rad)], axis=1)


def even(views: np.ndarray) -> np.ndarray:
    return np.ones(len(views))


def test_even_views_reach_one_and_the_extent_of_the_formula():
    """Mean of exp(-2 r^2 sin^2) over the sphere: Dawson's integral F(a) / a with a = r sqrt(2)."""
    found = coverage(EVEN, even(EVEN), DIRECTIONS, 30.0)
    assert found.efficiency > 0.995
    a = np.sqrt(2) * found.extent.mean()
    assert dawsn(a) / a == pytest.approx(np.exp(-2), rel=2e-3)


def test_side_views_have_the_extents_of_the_formula():
    """Along the axis every view is across: one. Across the axis the mean is exp(-t) I0(t), t = r^2."""
    views = tilted(np.full(1500, np.pi / 2))
    found = coverage(views, even(views), np.array([[0.0, 0, 1], [1.0, 0, 0]]), 30.0)
    assert found.extent[0] == pytest.approx(1, abs=1e-6)
    assert i0e(found.extent[1] ** 2) == pytest.approx(np.exp(-2), rel=0.02)


def test_a_single_view_is_a_rod():
    view = np.array([[0.0, 0, 1]])
    found = coverage(view, even(view), np.concatenate([DIRECTIONS, view]), 30.0)
    assert found.extent[-1] == pytest.approx(30.0) and found.efficiency < 0.05


def test_the_more_even_the_better():
    spread = [coverage(v, even(v), DIRECTIONS, 30.0).efficiency for v in (
        tilted(np.deg2rad(20) * np.sqrt(np.random.default_rng(2).random(1500))),
        tilted(np.full(1500, np.pi / 2)),
        tilted(np.deg2rad(60) * np.sqrt(np.random.default_rng(2).random(1500))),
        tilted(np.arccos(np.random.default_rng(2).uniform(-1, 1, 1500))))]
    assert spread == sorted(spread) and spread[0] < 0.1 and 0.2 < spread[1] < 0.5 and spread[3] > 0.95


def test_mates_count_as_views():
    """One view and its mates under the octahedral group are far better than the view."""
    rotations = np.tile(random_rotations(1, np.random.default_rng(4)), (50, 1, 1))
    alone, with_mates = (orientation_coverage(rotations, symmetry_operators(group), 30.0).efficiency for group in ("C1", "O"))
    assert alone < 0.05 and with_mates > 0.5
