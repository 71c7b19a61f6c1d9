"""Agreement of random starts: the same map in another frame and of the other hand is the same; other maps are not."""
from __future__ import annotations

import numpy as np
import pytest

from swiftres_plugin.engine.agreement import MIRROR, Standing, agreement
from swiftres_plugin.engine.maths.geometry import euler_to_matrix, random_rotations
from swiftres_plugin.engine.maths.symmetry import symmetry_operators

WITHIN_RAD = np.deg2rad(10)


def standing(frames: np.ndarray, maps: int = 1) -> Standing:
    return Standing(np.arange(len(frames)) % maps, frames)


@pytest.mark.parametrize("symmetry, turn_deg", [
    ("C1", (50, 70, 20)), ("C4", (0, 0, 33)), ("D2", (0, 0, 90)), ("O", (0, 0, 0))])
@pytest.mark.parametrize("hand", [np.eye(3), MIRROR])
def test_the_same_map_in_another_frame_is_the_same(symmetry, turn_deg, hand):
    """The frame is turned as far as the group leaves it free; classes stand at other mates, a tenth of them wrongly."""
    generator = np.random.default_rng(1)
    operators, frames = symmetry_operators(symmetry), random_rotations(40, generator)
    mates = operators[generator.integers(len(operators), size=40)]
    other = euler_to_matrix(*np.deg2rad(turn_deg)) @ (mates @ (hand @ frames @ hand))
    other[:4] = random_rotations(4, generator)
    found = agreement(standing(frames), standing(other), operators, WITHIN_RAD)
    assert 0.85 <= found <= 1.0  # of the wrong tenth some stand right by chance, which does not count


@pytest.mark.parametrize("symmetry", ["C1", "D2", "O"])
def test_random_maps_are_not_alike(symmetry):
    """But for what the luck of fifty classes makes of nothing."""
    generator = np.random.default_rng(2)
    first, other = (standing(random_rotations(50, generator)) for _ in range(2))
    assert agreement(first, other, symmetry_operators(symmetry), WITHIN_RAD) < 0.1


def test_crowds_do_not_agree():
    """All classes within a few degrees of one orientation stand alike in both starts, whatever each of them shows."""
    generator = np.random.default_rng(4)
    crowds = [standing(euler_to_matrix(*(np.deg2rad(2) * generator.standard_normal((3, 40))))) for _ in range(2)]
    assert agreement(*crowds, np.eye(3)[None], WITHIN_RAD) < 0.2


def test_maps_may_change_places():
    generator = np.random.default_rng(3)
    frames = random_rotations(40, generator)
    first = standing(frames, 2)
    turned = np.where(first.map_number[:, None, None] == 0, random_rotations(1, generator)[0] @ frames, frames)
    assert agreement(first, Standing(1 - first.map_number, turned), np.eye(3)[None], WITHIN_RAD) == pytest.approx(1.0)
    assert agreement(first, Standing(np.zeros(40, dtype=np.int64), turned), np.eye(3)[None], WITHIN_RAD) == pytest.approx(1.0)
