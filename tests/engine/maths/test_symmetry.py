"""Point groups are groups, stand in RELION's axes, and their asymmetric unit tiles the sphere."""
from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from swiftres_plugin.engine.data.particles import Poses
from swiftres_plugin.engine.maths import symmetry
from swiftres_plugin.engine.maths.geometry import euler_to_matrix, random_rotations, rotation_angle
from swiftres_plugin.errors import InputError

ORDERS = {**{f"C{n}": n for n in range(1, 9)}, **{f"D{n}": 2 * n for n in range(2, 9)},
          "T": 12, "O": 24, "I": 60, "I1": 60, "I2": 60, "I3": 60, "I4": 60}
SOME = ["C1", "C2", "C5", "D2", "D3", "D7", "T", "O", "I1", "I2", "I3", "I4"]


def nearest_angles(a, b):
    """For every rotation of a, the angle to the nearest of b."""
    return rotation_angle(a[:, None], b[None]).min(axis=1)


@pytest.mark.parametrize("name, order", ORDERS.items())
def test_is_a_group(name, order):
    group = symmetry.symmetry_operators(name)
    assert group.shape == (order, 3, 3)
    np.testing.assert_array_equal(group[0], np.eye(3))
    products = (group[:, None] @ group[None]).reshape(-1, 3, 3)
    assert nearest_angles(products, group).max() < 1e-7
    apart = rotation_angle(group[:, None], group[None]) + 10 * np.eye(order)
    assert apart.min() > 0.1
    np.testing.assert_allclose(np.linalg.det(group), 1, atol=1e-12)


@pytest.mark.parametrize("name", ORDERS)
def test_axes_are_relions(name):
    program = shutil.which("relion_refine")
    if program is None:
        pytest.skip("relion_refine is not installed: the axes of the point groups are not checked against it")
    said = subprocess.run([program, "--print_symmetry_ops", "--sym", name], capture_output=True, text=True, check=True)
    blocks = re.split(r"R\(\d+\)=", said.stdout)[1:]
    theirs = np.array([block.split("Euler")[0].split()[:9] for block in blocks], dtype=float).reshape(-1, 3, 3)
    ours = symmetry.symmetry_operators(name)
    assert len(theirs) == len(ours)
    assert nearest_angles(theirs, ours).max() < 1e-4  # printed with five digits
    assert nearest_angles(ours, theirs).max() < 1e-4


def test_names_in_any_case_and_unknown_names():
    np.testing.assert_array_equal(symmetry.symmetry_operators(" i3 "), symmetry.symmetry_operators("I3"))
    np.testing.assert_array_equal(symmetry.symmetry_operators("d2"), symmetry.symmetry_operators("D2"))
    for wrong in ("C0", "D", "I5", "Q4", "C100", "", "C2 C3"):
        with pytest.raises(InputError, match="unknown symmetry.*C1-C99"):
            symmetry.symmetry_operators(wrong)


@pytest.mark.parametrize("name", ORDERS)
def test_asymmetric_unit_tiles_the_sphere(name):
    group = symmetry.symmetry_operators(name)
    directions = random_rotations(3000, np.random.default_rng(1))[:, :, 2]
    mates = np.einsum("gij,nj->gni", group, directions)
    inside = symmetry.in_asymmetric_unit(mates.reshape(-1, 3), group).reshape(len(group), -1)
    np.testing.assert_array_equal(inside.sum(axis=0), 1)  # exactly one mate of every direction: no gap, no overlap
    mine = symmetry.in_asymmetric_unit(directions, group).sum()
    expected = 3000 / len(group)
    assert abs(mine - expected) <= 5 * np.sqrt(expected)


@pytest.mark.parametrize("name", SOME)
def test_closest_mates_agree_with_trying_all(name):
    group = symmetry.symmetry_operators(name)
    a, b = random_rotations(200, np.random.default_rng(2)).reshape(2, 100, 3, 3)
    mates, angles = symmetry.closest_mates(a, b, group)
    every = rotation_angle(a[:, None], group[None] @ b[:, None])
    np.testing.assert_allclose(angles, every.min(axis=1), atol=1e-7)
    np.testing.assert_allclose(rotation_angle(a, mates @ b), angles, atol=1e-12)


def jittered(rotations, sigma_rad, seed):
    """Rotations with a small random turn each, in the image's frame."""
    noise = np.random.default_rng(seed).normal(scale=sigma_rad, size=(len(rotations), 3))
    return rotations @ Rotation.from_rotvec(noise).as_matrix()


def shuffled_mates(rotations, group, seed):
    return group[np.random.default_rng(seed).integers(len(group), size=len(rotations))] @ rotations


@pytest.mark.parametrize("name", SOME)
def test_errors_do_not_see_the_choice_of_mate(name):
    group = symmetry.symmetry_operators(name)
    rotations = random_rotations(300, np.random.default_rng(3))
    turned = jittered(rotations, 0.01, 4)
    shift = np.random.default_rng(5).normal(size=(300, 2))
    found = Poses(shuffled_mates(turned, group, 6), shift + [3.0, -4.0])
    angles, shifts = symmetry.angular_errors(found, Poses(rotations, shift), group)
    np.testing.assert_allclose(angles, rotation_angle(turned, rotations), atol=1e-7)
    np.testing.assert_allclose(shifts, 5.0)


FRAMES = {
    "C1": euler_to_matrix(2.0, 1.0, -0.5), "C4": euler_to_matrix(0.3, 0.0, 0.0),
    "C5": euler_to_matrix(0.3, np.pi, 0.0), "D2": euler_to_matrix(np.pi / 2, 0.0, 0.0),
    "D3": euler_to_matrix(np.pi / 3, 0.0, 0.0), "T": Rotation.from_rotvec(
        np.pi / 2 * np.array([0, np.sqrt(2 / 3), np.sqrt(1 / 3)])).as_matrix(), "O": np.eye(3), "I3": np.eye(3)}


@pytest.mark.parametrize("name", FRAMES)
def test_frame_is_recovered_with_half_of_the_poses_wrong(name):
    group = symmetry.symmetry_operators(name)
    true = random_rotations(800, np.random.default_rng(7))
    found = shuffled_mates(FRAMES[name] @ jittered(true, 0.03, 8), group, 9)
    found[:480] = random_rotations(480, np.random.default_rng(10))
    frame = symmetry.global_rotation(found, true, group)
    # 320 good poses of 0.03 rad an axis: the mean is known to 0.03 / sqrt(320) = 0.0017 an axis
    assert rotation_angle(group @ FRAMES[name], frame).min() < 0.008
    turned = frame @ group @ frame.T
    assert nearest_angles(turned, group).max() < 1e-7


@pytest.mark.parametrize("name", SOME)
def test_frame_of_equal_poses_is_the_identity(name):
    group = symmetry.symmetry_operators(name)
    true = random_rotations(300, np.random.default_rng(11))
    frame = symmetry.global_rotation(shuffled_mates(true, group, 12), true, group)
    assert rotation_angle(group, frame).min() < 1e-6


def test_random_poses_stay_random():
    """Removing a frame must not make unrelated poses look alike."""
    true, found = random_rotations(4000, np.random.default_rng(13)).reshape(2, 2000, 3, 3)
    group = symmetry.symmetry_operators("C1")
    _, angles = symmetry.closest_mates(found, symmetry.global_rotation(found, true, group) @ true, group)
    assert np.degrees(np.median(angles)) > 120  # 132 degrees for the uniform distribution


@pytest.mark.parametrize("name, free", [("C1", [1, 1, 1]), ("C3", [0, 0, 1]), ("D2", [0, 0, 0]), ("I2", [0, 0, 0])])
def test_move_of_the_map_is_recovered(name, free):
    group = symmetry.symmetry_operators(name)
    rotations = random_rotations(500, np.random.default_rng(14))
    move = np.array([2.0, -1.0, 3.0]) * free
    generator = np.random.default_rng(15)
    shift = generator.normal(size=(500, 2))
    found_rotations = shuffled_mates(rotations, group, 16)
    moved = shift + (found_rotations.transpose(0, 2, 1) @ move)[:, :2] + generator.normal(scale=0.2, size=(500, 2))
    moved[:100] = generator.uniform(-20, 20, size=(100, 2))
    found = symmetry.global_translation(Poses(found_rotations, moved), Poses(rotations, shift), group)
    # 400 good shifts of 0.2 A: 0.2 / sqrt(400 * 2 / 3) = 0.012 an axis
    np.testing.assert_allclose(found, move, atol=0.08)


@pytest.mark.parametrize("name", ["C1", "C4", "D3"])
def test_nothing_is_left_of_a_turned_and_moved_frame(name):
    """The errors after carrying one pose set to the frame of the other are those that were put in."""
    group = symmetry.symmetry_operators(name)
    free = {"C1": [1, 1, 1], "C4": [0, 0, 1], "D3": [0, 0, 0]}[name]
    move = np.array([2.0, -1.0, 3.0]) * free
    true = Poses(random_rotations(400, np.random.default_rng(17)), np.random.default_rng(18).normal(size=(400, 2)))
    turned = FRAMES[name] @ true.image_to_volume
    found = Poses(shuffled_mates(turned, group, 19), true.shift_a + (turned.transpose(0, 2, 1) @ move)[:, :2])
    carried, _, found_move = symmetry.in_frame_of(found, true, group)
    angles, shifts = symmetry.angular_errors(found, carried, group)
    np.testing.assert_allclose(angles, 0, atol=1e-6)
    np.testing.assert_allclose(shifts, 0, atol=1e-5)
    if name == "C1":
        np.testing.assert_allclose(found_move, move, atol=1e-5)


@pytest.mark.parametrize("name, turns", [
    ("C1", 1), ("C3", 1), ("C4", 4), ("C6", 2), ("D2", 4), ("D3", 2), ("O", 24), ("I1", 12)])
def test_turns_of_axes_and_the_others_make_the_group(name, turns):
    """Each operator once, as one of the first times one of the second."""
    operators = symmetry.symmetry_operators(name)
    group, others = symmetry.turns_of_axes(operators)
    assert len(group) == turns and np.isin(group, (-1, 0, 1)).all()
    made = (group[:, None] @ others).reshape(-1, 3, 3)
    order = np.abs(made[:, None] - operators).max((2, 3)).argmin(1)
    assert sorted(order) == list(range(len(operators)))
    np.testing.assert_allclose(made, operators[order], atol=1e-9)
