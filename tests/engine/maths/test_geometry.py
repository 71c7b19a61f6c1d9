"""Rotations: conventions, round trips, distances, and how well the grids cover."""
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from swiftres_plugin.engine.maths import geometry


@pytest.fixture
def rotations():
    return geometry.random_rotations(500, np.random.default_rng(1))


def test_euler_matrix_is_the_written_product():
    rot, tilt, psi = np.random.default_rng(2).uniform(-4, 4, (3, 100))
    expected = Rotation.from_euler("ZYZ", np.stack([rot, tilt, psi], axis=1)).as_matrix()  # capitals: about moving axes
    np.testing.assert_allclose(geometry.euler_to_matrix(rot, tilt, psi), expected, atol=1e-14)


def test_a_quarter_turn_in_plane_carries_x_to_y():
    np.testing.assert_allclose(geometry.euler_to_matrix(0, 0, np.pi / 2) @ [1, 0, 0], [0, 1, 0], atol=1e-15)


def test_euler_round_trip(rotations):
    rot, tilt, psi = geometry.matrix_to_euler(rotations)
    assert (tilt >= 0).all() and (tilt <= np.pi).all()
    np.testing.assert_allclose(geometry.euler_to_matrix(rot, tilt, psi), rotations, atol=1e-12)


@pytest.mark.parametrize("tilt", [0.0, 1e-9, 1e-5, np.pi - 1e-5, np.pi])
def test_euler_round_trip_at_the_poles(tilt):
    rotation = geometry.euler_to_matrix(np.array([0.3, -2.0]), tilt, np.array([1.1, 3.0]))
    np.testing.assert_allclose(geometry.euler_to_matrix(*geometry.matrix_to_euler(rotation)), rotation, atol=1e-8)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-3, 1.0, 3.0, np.pi])
def test_rotation_angle_is_the_angle(rotations, angle):
    axis = np.random.default_rng(3).normal(size=(500, 3))
    turn = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis, axis=1, keepdims=True)).as_matrix()
    # arcsin loses half the digits at a half turn, nowhere else
    np.testing.assert_allclose(geometry.rotation_angle(rotations, rotations @ turn), angle, rtol=1e-6, atol=1e-7)


def test_rotation_vector_agrees_with_scipy():
    vectors = np.random.default_rng(4).uniform(-1.8, 1.8, size=(4, 50, 3))
    matrices = geometry.rotation_vector_to_matrix(torch.tensor(vectors)).numpy()
    np.testing.assert_allclose(
        matrices, Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(4, 50, 3, 3), atol=1e-13)


def test_rotation_vector_at_zero_is_identity_with_a_finite_gradient():
    vector = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    matrix = geometry.rotation_vector_to_matrix(vector)
    torch.testing.assert_close(matrix, torch.eye(3, dtype=torch.float64).expand(2, 3, 3), rtol=0, atol=0)
    matrix[:, 2, 1].sum().backward()
    torch.testing.assert_close(vector.grad, torch.tensor([[1.0, 0, 0]] * 2, dtype=torch.float64))


def test_random_rotations_are_uniform_and_seeded():
    rotations = geometry.random_rotations(20000, np.random.default_rng(5))
    # E R = 0 and E R_ij^2 = 1/3 under the uniform measure; four standard errors at 20,000 draws
    np.testing.assert_allclose(rotations.mean(axis=0), 0, atol=4 * math.sqrt(1 / 3 / 20000))
    np.testing.assert_allclose((rotations**2).mean(axis=0), 1 / 3, atol=4 * 0.3 / math.sqrt(20000))
    np.testing.assert_array_equal(rotations, geometry.random_rotations(20000, np.random.default_rng(5)))


def test_mean_rotation_finds_the_centre_of_a_cloud(rotations):
    centre = rotations[0]
    noise = Rotation.from_rotvec(np.random.default_rng(6).normal(scale=0.05, size=(2000, 3))).as_matrix()
    # the mean of 2,000 is 0.05 * sqrt(3 / 2000) = 0.002 from the centre
    assert geometry.rotation_angle(geometry.mean_rotation(centre @ noise), centre) < 0.005
    assert geometry.rotation_angle(geometry.mean_rotation(rotations[:2], np.array([1.0, 0.0])), centre) < 1e-7
    both = geometry.mean_rotation(np.stack([centre @ noise, rotations[1] @ noise]))
    assert geometry.rotation_angle(both, np.stack([centre, rotations[1]])).max() < 0.005


def test_perturbed_rotations_turn_no_farther_than_asked(rotations):
    turn = geometry.rotation_angle(geometry.perturbed(rotations, 0.1, np.random.default_rng(2)), rotations)
    assert turn.max() <= 0.1 and turn.mean() == pytest.approx(0.075, rel=0.1)  # 3/4 of the radius of a ball


@pytest.mark.parametrize("step_deg", [20.0, 7.5, 3.0])
def test_directions_cover_the_sphere(step_deg):
    step = np.radians(step_deg)
    grid = geometry.direction_grid(step)
    np.testing.assert_allclose(np.linalg.norm(grid, axis=1), 1, atol=1e-12)
    anywhere = np.random.default_rng(7).normal(size=(20000, 3))
    anywhere /= np.linalg.norm(anywhere, axis=1, keepdims=True)
    nearest = 2 * np.arcsin(cKDTree(grid).query(anywhere)[0] / 2)
    assert nearest.max() < step
    # equal areas of side `step` at most; the next coarser grid would be too coarse
    assert 4 * np.pi / len(grid) <= step**2 * (1 + 1e-9)
    assert len(grid) < 4 * np.pi / step**2 * 1.6


def test_grid_steps_between_powers_of_two_are_used():
    counts = [len(geometry.direction_grid(math.sqrt(math.pi / 3) / n)) for n in (1, 2, 3, 5)]
    assert counts == [12, 48, 108, 300]


def test_rotations_from_directions_look_along_them(rotations):
    directions = np.concatenate([rotations[:, :, 2], [[0, 0, 1], [0, 0, -1]]])
    found = geometry.rotations_from_directions(directions)
    np.testing.assert_allclose(found[:, :, 2], directions, atol=1e-12)
    np.testing.assert_allclose(np.sin(geometry.matrix_to_euler(found)[2][:-2]), 0, atol=1e-7)  # psi = 0
    np.testing.assert_allclose(found @ found.transpose(0, 2, 1), np.broadcast_to(np.eye(3), found.shape), atol=1e-12)


def test_in_plane_grid_is_even_and_open():
    psi = geometry.in_plane_grid(np.radians(7))
    np.testing.assert_allclose(np.diff(psi), 2 * np.pi / 52)
    assert psi[0] == 0 and len(psi) == 52


def test_so3_grid_covers_all_rotations(rotations):
    step = np.radians(15)
    grid = geometry.so3_grid(step)
    nearest = np.array([geometry.rotation_angle(grid, rotation).min() for rotation in rotations])
    # half the step off in plane and up to a step off in direction, at the worst place
    assert nearest.max() < 1.15 * step
    # cells of volume step^3 have a mean distance to their centre of 0.48 step
    assert 0.35 * step < nearest.mean() < 0.65 * step


def test_shift_grid_fills_a_circle():
    grid = geometry.shift_grid(10.0, 3.0)
    assert np.array_equal(grid[0], [0, 0])
    radius = np.hypot(*grid.T)
    assert np.all(np.diff(radius) >= 0) and radius[-1] <= 11.5
    assert len(np.unique(grid, axis=0)) == len(grid)
    assert len(grid) == sum((3 * a) ** 2 + (3 * b) ** 2 <= 11.5 ** 2 for a in range(-9, 10) for b in range(-9, 10))


def test_a_finer_grid_lies_twice_as_dense(rotations):
    """Directions, angles and shifts of the parts: within their cell, and as near to any pose as a grid of half the step."""
    step = np.radians(20)
    frames = geometry.rotations_from_directions(geometry.direction_grid(step))
    coarse = geometry.PoseGrid(frames, geometry.in_plane_grid(step, even=True), geometry.shift_grid(9.0, 4.0), step, 4.0)
    fine = coarse.finer()
    assert (len(fine.frames), len(fine.psi_rad), len(fine.shifts_a)) == (4 * len(frames), 36, 4 * len(coarse.shifts_a))
    assert (fine.step_rad, fine.step_a) == (step / 2, 2.0)
    moved = geometry.rotation_angle(fine.frames.reshape(-1, 4, 3, 3), frames[:, None])
    np.testing.assert_allclose(moved, step / 4 * np.sqrt(2), atol=1e-6)
    np.testing.assert_allclose(np.diff(np.sort(fine.psi_rad)), step / 2)
    np.testing.assert_allclose(np.abs(fine.shifts_a.reshape(-1, 4, 2) - coarse.shifts_a[:, None]), 1.0)
    every = (fine.frames[:, None] @ geometry.euler_to_matrix(0.0, 0.0, fine.psi_rad)).reshape(-1, 3, 3)
    nearest = np.array([geometry.rotation_angle(every, rotation).min() for rotation in rotations])
    assert nearest.max() < 1.15 * step / 2 and nearest.mean() < 0.65 * step / 2
