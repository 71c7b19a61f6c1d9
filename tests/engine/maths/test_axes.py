"""The turn and the move that bring a map onto its symmetry axes, on phantoms turned and moved by known amounts."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from synthetic import PLACES_A, Phantom

from swiftres_plugin.engine.maths.axes import find_axes, turned
from swiftres_plugin.engine.maths.geometry import rotation_angle
from swiftres_plugin.engine.maths.symmetry import symmetry_operators

RESOLUTION_A = 24.0
TURN = Rotation.from_rotvec([0.4, -0.24, 0.32]).as_matrix()
MOVE_A = np.array([6.0, -5.0, 4.0])
STILL = 0.005  # correlation that is found in a map that is in its axes already, by interpolation alone


def phantom(group: np.ndarray) -> Phantom:
    count = 2 if len(group) < 20 else 1
    places = PLACES_A[:count] + np.array([12.0, 3.0, 9.0])
    return Phantom(places_a=places, weights=np.array([1.0, 0.7])[:count]).symmetric(group)


def displaced(one: Phantom) -> Phantom:
    return replace(one, places_a=one.places_a @ TURN.T + MOVE_A)


GROUPS = ["C2", "C4", "D2", pytest.param("C3", marks=pytest.mark.slow), pytest.param("D5", marks=pytest.mark.slow),
          pytest.param("T", marks=pytest.mark.slow), pytest.param("O", marks=pytest.mark.slow),
          pytest.param("I2", marks=pytest.mark.slow)]


@pytest.mark.parametrize("name", GROUPS)
def test_a_turned_and_moved_map_is_brought_back(name):
    group = symmetry_operators(name)
    density = displaced(phantom(group)).map(32, 4.0)
    axes = find_axes(density, group, RESOLUTION_A)
    assert axes.given < 0.75 and axes.found > 0.99  # sixty mates on a shell are like each other wherever it is turned
    # No turn that does it is larger than the one that undoes what was done (the smallest is asked for).
    assert axes.angle_rad < rotation_angle(TURN, np.eye(3)) + 0.02
    back = turned(density, axes)
    after = find_axes(back, group, RESOLUTION_A)
    assert after.given > 0.985 and np.linalg.norm(after.move_a) < 0.5
    # Sixty mates on a shell hardly tell a turn by three degrees, so there is hardly more to find than in a map in its axes.
    assert after.angle_rad < np.deg2rad(1.5) or name == "I2" and after.found - after.given < STILL


def test_a_map_in_its_axes_is_left_there():
    group = symmetry_operators("C4")
    axes = find_axes(phantom(group).map(32, 4.0), group, RESOLUTION_A)
    assert axes.given > 0.995 and axes.found - axes.given < STILL and axes.angle_rad < np.deg2rad(0.5)


def test_a_map_without_the_symmetry_does_not_get_it():
    axes = find_axes(Phantom().map(32, 4.0), symmetry_operators("C3"), RESOLUTION_A)
    assert axes.found < 0.8


def test_nothing_is_turned_without_symmetry():
    density = Phantom().map(32, 4.0)
    axes = find_axes(density, symmetry_operators("C1"), RESOLUTION_A)
    np.testing.assert_array_equal(axes.turn, np.eye(3))
    np.testing.assert_allclose(turned(density, axes).voxels, density.voxels, atol=1e-6)
