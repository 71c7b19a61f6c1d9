"""Repeated alignments: the majority decides, mates are one pose, outliers do not pull, no majority is told."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from synthetic import assignment_of, random_poses

from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.maths.geometry import rotation_angle
from swiftres_plugin.engine.maths.symmetry import closest_mates, symmetry_operators
from swiftres_plugin.engine.stages.consensus import consensus

COUNT, STEP_RAD, STEP_A = 50, np.deg2rad(6), 4.0
ONE = symmetry_operators("C1")


@pytest.fixture
def truth() -> Assignment:
    return replace(assignment_of(random_poses(COUNT)), class_id=np.zeros(COUNT, np.int64))


def scattered(truth: Assignment, repeats: int, angle_rad: float, move_a: float) -> list[Assignment]:
    """The truth turned and moved by normal deviates, with likelihoods in descending order."""
    random = np.random.default_rng(4)
    vectors = angle_rad * random.normal(size=(repeats * COUNT, 3))
    turns = Rotation.from_rotvec(vectors).as_matrix().reshape(repeats, COUNT, 3, 3)
    moves = move_a * random.normal(size=(repeats, COUNT, 2))
    return [replace(truth, log_likelihood=np.full(COUNT, 10.0 - r), image_to_volume=truth.image_to_volume @ turns[r],
                    shift_a=truth.shift_a + moves[r]) for r in range(repeats)]


def far_off(one: Assignment) -> Assignment:
    return replace(one, image_to_volume=one.image_to_volume @ Rotation.from_euler("x", 90, degrees=True).as_matrix())


def test_the_mean_of_those_that_agree_is_nearer_to_the_truth(truth):
    """Nine means of errors s have s / 3, on average."""
    found, share = consensus(scattered(truth, 9, 0.01, 0.3), ONE, STEP_RAD, STEP_A)
    turn = rotation_angle(found.image_to_volume, truth.image_to_volume)
    move = np.linalg.norm(found.shift_a - truth.shift_a, axis=1)
    assert (share == 1).all()
    assert np.sqrt(np.mean(turn ** 2) / 3) == pytest.approx(0.01 / 3, rel=0.2)
    assert np.sqrt(np.mean(move ** 2) / 2) == pytest.approx(0.3 / 3, rel=0.2)


def test_an_outlier_is_outvoted_and_does_not_pull(truth):
    """The likeliest alignment of three is wrong."""
    likely = replace(far_off(truth), log_likelihood=truth.log_likelihood + 1)
    found, share = consensus([likely, truth, truth], ONE, STEP_RAD, STEP_A)
    np.testing.assert_allclose(found.image_to_volume, truth.image_to_volume, atol=1e-9)
    np.testing.assert_allclose(share, 2 / 3)
    np.testing.assert_allclose(found.log_likelihood, truth.log_likelihood)


def test_half_is_no_majority_and_the_likeliest_stands(truth):
    likely = replace(far_off(truth), log_likelihood=truth.log_likelihood + 1)
    found, share = consensus([truth, likely], ONE, STEP_RAD, STEP_A)
    np.testing.assert_allclose(share, 0.5)
    np.testing.assert_array_equal(found.image_to_volume, likely.image_to_volume)
    assert (found.log_likelihood == likely.log_likelihood).all()


@pytest.mark.parametrize("group", ["C3", "D2", "O"])
def test_mates_are_one_pose(truth, group):
    operators = symmetry_operators(group)
    turned = [replace(truth, image_to_volume=operators[r % len(operators)] @ truth.image_to_volume) for r in range(4)]
    found, share = consensus(turned, operators, STEP_RAD, STEP_A)
    assert (share == 1).all()
    assert closest_mates(truth.image_to_volume, found.image_to_volume, operators)[1].max() < 1e-6


@pytest.mark.parametrize("change, share", [
    ({"shift_a": STEP_A * 1.01 * np.array([0.6, 0.8])}, 1 / 2), ({"shift_a": STEP_A * 0.99 * np.array([0.6, 0.8])}, 1),
    ({"class_id": 1}, 1 / 2)])
def test_a_shift_beyond_the_step_or_another_class_disagrees(truth, change, share):
    other = replace(truth, **{name: getattr(truth, name) + value for name, value in change.items()})
    _, found = consensus([truth, other], ONE, STEP_RAD, STEP_A)
    np.testing.assert_allclose(found, share)
