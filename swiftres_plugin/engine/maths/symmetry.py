"""Point groups in RELION's axes, their asymmetric unit, and the likeness of poses under them.

An operator S is a rotation that maps the volume to itself: S @ R is the same view as R (docs/conventions.md).
"""
from __future__ import annotations

import re

import numpy as np
from scipy.spatial.transform import Rotation

from swiftres_plugin.engine.data.particles import Poses
from swiftres_plugin.engine.maths.geometry import direction_grid, rotation_angle, rotations_from_directions
from swiftres_plugin.errors import InputError

GOLDEN = (1 + 5**0.5) / 2
KNOWN = "C1-C99, D1-D99, T, O, I (= I2), I1, I2, I3, I4"

# Two generators of each polyhedral group: (fold, axis), in RELION's axes.
POLYHEDRAL = {
    "T": ((3, (0, 0, 1)), (2, (0, 2**0.5, 1))),
    "O": ((4, (0, 0, 1)), (4, (1, 0, 0))),
    "I1": ((2, (0, 0, 1)), (5, (0, 1, GOLDEN))),
    "I2": ((2, (0, 0, 1)), (5, (1, 0, GOLDEN))),
    "I3": ((5, (0, 0, 1)), (2, (-1, 0, GOLDEN))),
    "I4": ((5, (0, 0, 1)), (2, (1, 0, GOLDEN)))}

# Angle (radians) beyond which a pose counts as an outlier when two pose sets are brought into one frame.
OUTLIER_RAD = 0.1
# Operators of a file may be rounded to so much (rad, and in their entries); the nearest two of C99 are 0.063 rad apart.
ROUNDED = 0.01


def symmetry_operators(name: str) -> np.ndarray:
    """(|G|, 3, 3) float64 rotations of the point group `name` (any case), the identity first.

    Raises `InputError` when the group is not known.
    """
    group = name.strip().upper()
    if cyclic := re.fullmatch(r"([CD])([1-9]\d?)", group):
        kind, fold = cyclic.group(1), int(cyclic.group(2))
        turns = Rotation.from_euler("z", 2 * np.pi / fold * np.arange(fold)).as_matrix()
        flip = np.diag([1.0, -1.0, -1.0])  # twofold on x
        return turns if kind == "C" else np.concatenate([turns, turns @ flip])
    generators = POLYHEDRAL.get("I2" if group == "I" else group)
    if generators is None:
        raise InputError("unknown symmetry", found=f"'{name}'", expected=KNOWN)
    return _closure(np.stack([_turn(axis, 2 * np.pi / fold) for fold, axis in generators]))


def turns_of_axes(operators: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The operators that map axes onto axes, a group (H, 3, 3), and others (|G| / H, 3, 3) that make all of G by them.

    Every operator is one of the first times one of the second.
    """
    aligned = (np.abs(operators - operators.round()) < 1e-9).all((1, 2))
    group, others, covered = operators[aligned].round(), [], np.zeros(len(operators), dtype=bool)
    for number, operator in enumerate(operators):
        if not covered[number]:
            others.append(operator)
            covered |= (np.abs(operators - (group @ operator)[:, None]).max((2, 3)) < 1e-6).any(0)
    return group, np.stack(others)


def checked_group(matrices: np.ndarray, where: object) -> np.ndarray:
    """(|G|, 3, 3) the exact group that matrices (K, 3, 3), perhaps rounded, list; the identity first.

    Raises `InputError`, naming the place `where` they come from, unless they are rotations, all different, and closed.
    """
    finite = np.isfinite(matrices).all(axis=(1, 2))
    known = np.where(finite[:, None, None], matrices, 0.0)
    off = np.abs(known @ known.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2)) + np.abs(np.linalg.det(known) - 1)
    if off.max() > ROUNDED:
        raise InputError("a matrix is no rotation", where=where, found=f"matrix {int(np.argmax(off > ROUNDED)) + 1}",
                         expected="orthonormal rows and a determinant of 1")
    group = _nearest_rotations(matrices)
    between = rotation_angle(group[:, None], group[None]) + 10 * np.eye(len(group))
    if between.min() < 2 * ROUNDED:
        first, second = np.unravel_index(int(between.argmin()), between.shape)
        raise InputError("a matrix occurs twice", where=where, found=f"matrices {first + 1} and {second + 1}")
    table = _products(group, where)
    for _ in range(4):  # the mean over every way to make an element; what is off is squared each time
        group = _nearest_rotations((group[table] @ group[None].transpose(0, 1, 3, 2)).mean(axis=1))
    return group[np.argsort(rotation_angle(group, np.eye(3)) > ROUNDED, kind="stable")]


def _products(group: np.ndarray, where: object) -> np.ndarray:
    """(K, K) which element the product of elements i and j is. Raises `InputError` where there is none."""
    table = np.empty((len(group), len(group)), dtype=np.int64)
    for row, element in enumerate(group):
        apart = rotation_angle((element @ group)[:, None], group[None])
        table[row] = apart.argmin(axis=1)
        missing = np.flatnonzero(apart.min(axis=1) > 2 * ROUNDED)
        if len(missing):
            raise InputError("the matrices are no group", where=where, expected="every operator, the identity too",
                             found=f"no matrix for the product of matrices {row + 1} and {missing[0] + 1}",
                             remedy="List all products of the operators.")
    return table


def _nearest_rotations(matrices: np.ndarray) -> np.ndarray:
    """(N, 3, 3) the rotations nearest to matrices (N, 3, 3)."""
    return np.stack([_nearest_rotation(matrix) for matrix in matrices])


def in_asymmetric_unit(directions: np.ndarray, operators: np.ndarray) -> np.ndarray:
    """(N,) whether each of the unit vectors (N, 3) is in the asymmetric unit: one in |G| of the sphere, without gaps.

    The unit is the set of directions nearer to a generic vector than to any of its mates (a Dirichlet cell).
    """
    centre = _generic_direction(operators)
    nearness = directions @ (operators @ centre).T  # column 0 is the identity
    return nearness[:, 0] >= nearness.max(axis=1) - 1e-9


def closest_mates(a: np.ndarray, b: np.ndarray, operators: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For rotations a, b (N, 3, 3): operators S (N, 3, 3) of the smallest angles of inv(a) @ S @ b, and these (N,)."""
    # trace(inv(a) S b) = sum of S * (a inv(b)): one matrix product for all operators
    likeness = (a @ b.transpose(0, 2, 1)).reshape(-1, 9) @ operators.reshape(-1, 9).T
    mates = operators[likeness.argmax(axis=1)]
    return mates, rotation_angle(a, mates @ b)


def angular_errors(found: Poses, true: Poses, operators: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angles (N,) radians between poses of the same particles under the group, and lengths (N,) A of shift differences.

    Shifts are moves within the image, which no operator touches: their difference needs no rotation.
    """
    _, angles = closest_mates(found.image_to_volume, true.image_to_volume, operators)
    return angles, np.linalg.norm(found.shift_a - true.shift_a, axis=1)


def global_rotation(found: np.ndarray, true: np.ndarray, operators: np.ndarray) -> np.ndarray:
    """(3, 3) the rotation Q between the two map frames, such that found ~ S @ Q @ true for rotations (N, 3, 3).

    Only rotations that leave the group in its axes (Q G inv(Q) = G) are free: any for C1; about z, and turning z over,
    for Cn; a handful for D and T (such as Rz(pi/n) for Dn); none but the group itself for O and I. Starts are the
    identity and what single particles say; the start with the best Geman-McClure score is refined by reweighting, so
    more than half of the poses may be wrong. When two frames fit equally well, the first (the identity) is taken.
    """
    if (turn := _axis_to_z(operators)) is not None:
        return turn.T @ global_rotation(turn @ found, turn @ true, turn @ operators @ turn.T) @ turn
    few = np.linspace(0, len(found) - 1, min(len(found), 1000)).astype(int)
    starts = _frame_candidates(found[few[:: max(1, len(few) // 100)]], true[few[:: max(1, len(few) // 100)]], operators)
    scores = [_outlier_score(found[few], turn @ true[few], operators) for turn in starts]
    rotation = starts[int(np.argmin(np.round(scores, 6)))]
    return _refine_rotation(rotation, found, true, operators) if _free_axes(operators).any() else rotation


def global_translation(found: Poses, true: Poses, operators: np.ndarray) -> np.ndarray:
    """(3,) A: the move t of the found map against the true one, once the poses are in one frame of rotation.

    It shows in an image as found shift - true shift = (x, y) of inv(R) @ t. Only moves along directions that every
    operator keeps are free: any for C1, along z for Cn, none else. Poses off by more than 0.1 rad count little.
    """
    free = fixed_directions(operators)
    if free.shape[1] == 0:
        return np.zeros(3)
    design = found.image_to_volume.transpose(0, 2, 1)[:, :2] @ free
    target = found.shift_a - true.shift_a
    angles, _ = angular_errors(found, true, operators)
    trust = _inlier_weights(angles)
    move = np.zeros(free.shape[1])
    for _ in range(20):
        residual = np.linalg.norm(target - design @ move, axis=1)
        weights = trust / np.maximum(residual, 1e-2)  # least absolute residuals, by reweighting
        normal = np.einsum("n,nik,nil->kl", weights, design, design)
        move = np.linalg.lstsq(normal, np.einsum("n,nik,ni->k", weights, design, target), rcond=None)[0]
    return free @ move


def in_frame_of(found: Poses, true: Poses, operators: np.ndarray) -> tuple[Poses, np.ndarray, np.ndarray]:
    """The poses `true` carried to the map frame of `found`; the rotation (3, 3) and the move (3,) A that did it."""
    rotation = global_rotation(found.image_to_volume, true.image_to_volume, operators)
    turned = rotation @ true.image_to_volume
    move = global_translation(found, Poses(turned, true.shift_a), operators)
    return Poses(turned, true.shift_a + (turned.transpose(0, 2, 1) @ move)[:, :2]), rotation, move


def generators(operators: np.ndarray) -> np.ndarray:
    """(K, 3, 3) few operators whose products are the whole group (|G|, 3, 3); none for C1."""
    chosen: list[np.ndarray] = []
    made = np.eye(3)[None]
    for operator in operators[1:]:
        if rotation_angle(made, operator).min() > ROUNDED:
            chosen.append(operator)
            made = _closure(np.stack(chosen))
        if len(made) == len(operators):
            break
    return np.stack(chosen) if chosen else np.empty((0, 3, 3))


def fixed_directions(operators: np.ndarray) -> np.ndarray:
    """(3, K) orthonormal columns along which no operator moves anything: x, y, z for C1, z for Cn, none else."""
    return _basis(operators.mean(axis=0))  # the mean over a group projects on what it keeps


def equal_frames(operators: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """(K, 3, 3) turns that bring a map onto the axes of a group as `turn` does; for Cn the smallest of each hand.

    They are N @ turn with N Q inv(N) in the group for every operator Q: some turn other axes of a kind to where one was.
    """
    axis = fixed_directions(operators)
    if axis.shape[1] == 0:
        return _finite_normaliser(operators) @ turn
    shortest = [shortest_turn(turn.T @ (sign * axis[:, 0]), axis[:, 0]) for sign in (1, -1)]
    return np.stack(shortest) if axis.shape[1] == 1 else np.eye(3)[None]


def shortest_turn(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(3, 3) the smallest rotation that brings one unit vector (3,) to another."""
    across, along = np.cross(source, target), float(source @ target)
    length = float(np.linalg.norm(across))
    if length < 1e-9 and along < 0:  # any axis across does
        across = np.cross(source, np.eye(3)[np.abs(source).argmin()])
    return Rotation.from_rotvec(across * np.arctan2(length, along) / max(float(np.linalg.norm(across)), 1e-12)).as_matrix()


def _turn(axis: tuple[float, float, float] | np.ndarray, angle_rad: float) -> np.ndarray:
    return Rotation.from_rotvec(angle_rad * np.asarray(axis, dtype=np.float64) / np.linalg.norm(axis)).as_matrix()


def _closure(generators: np.ndarray) -> np.ndarray:
    """(|G|, 3, 3) the finite group that rotations (K, 3, 3) generate, the identity first."""
    group = [np.eye(3)]
    for element in group:  # grows while it is walked
        for generator in generators:
            product = element @ generator
            if rotation_angle(np.stack(group), product).min() > 1e-6:
                group.append(product)
    return np.stack(group)


def _generic_direction(operators: np.ndarray) -> np.ndarray:
    """(3,) the direction of a coarse grid that stands farthest from its own mates; away from every axis and mirror."""
    tilted = Rotation.from_rotvec([0.1, 0.2, 0.3]).as_matrix()  # so that no grid point falls on the unit's edges
    grid = direction_grid(0.2) @ tilted
    if len(operators) == 1:
        return grid[0]
    nearest_mate = np.einsum("ni,gij,nj->gn", grid, operators[1:], grid, optimize=True).max(axis=0)
    return grid[int(nearest_mate.argmin())]


def _free_axes(operators: np.ndarray) -> np.ndarray:
    """(3,) which of x, y, z a map frame may turn about continuously: all for C1, z for Cn, none for other groups."""
    if len(operators) == 1:
        return np.array([True, True, True])
    return np.array([False, False, bool(np.allclose(operators[:, 2, 2], 1.0))])


def _axis_to_z(operators: np.ndarray) -> np.ndarray | None:
    """(3, 3) a rotation that brings the one axis of a cyclic group to z; None where it lies there, or is not one."""
    axis = fixed_directions(operators)
    if axis.shape[1] != 1 or np.isclose(abs(axis[2, 0]), 1.0):
        return None
    return rotations_from_directions(axis[:, 0]).T


def _frame_candidates(found: np.ndarray, true: np.ndarray, operators: np.ndarray) -> np.ndarray:
    """(K, 3, 3) rotations between two map frames that keep the group: the identity, and those worth trying."""
    free = _free_axes(operators)
    if not free.any():
        return _cosets(_finite_normaliser(operators), operators)
    says = found @ true.transpose(0, 2, 1)
    if not free.all():
        flip = np.diag([1.0, -1.0, -1.0])
        says = np.concatenate([_about_z(says), _about_z(says @ flip) @ flip])
    return np.concatenate([np.eye(3)[None], says])


def _finite_normaliser(operators: np.ndarray) -> np.ndarray:
    """(|N|, 3, 3) rotations that keep a D, T, O or I group in its axes: it, and those of its square roots that do."""
    halves = Rotation.from_rotvec(Rotation.from_matrix(operators).as_rotvec() / 2).as_matrix()
    keep = [half for half in halves if _keeps(half, operators)]
    return _closure(np.concatenate([operators, keep]))


def _keeps(rotation: np.ndarray, operators: np.ndarray) -> bool:
    """Whether rotation @ G @ inv(rotation) is G."""
    turned = rotation @ operators @ rotation.T
    return bool(rotation_angle(turned[:, None], operators[None]).min(axis=1).max() < 1e-6)


def _cosets(elements: np.ndarray, operators: np.ndarray) -> np.ndarray:
    """(K, 3, 3) one element for each K different up to the group, in the order given."""
    kept: list[np.ndarray] = []
    for element in elements:
        if all(rotation_angle(operators @ other, element).min() > 1e-6 for other in kept):
            kept.append(element)
    return np.stack(kept)


def _about_z(rotations: np.ndarray) -> np.ndarray:
    """(N, 3, 3) the rotation about z nearest to each of (N, 3, 3)."""
    angle = np.arctan2(rotations[:, 1, 0] - rotations[:, 0, 1], rotations[:, 0, 0] + rotations[:, 1, 1])
    return Rotation.from_euler("z", angle).as_matrix()


def _outlier_score(found: np.ndarray, true: np.ndarray, operators: np.ndarray) -> float:
    """Mean of a^2 / (a^2 + w^2) (Geman and McClure) over angles a: 0 when all agree, 1 when none does."""
    _, angles = closest_mates(found, true, operators)
    return float(np.mean(angles**2 / (angles**2 + OUTLIER_RAD**2)))


def _inlier_weights(angles_rad: np.ndarray) -> np.ndarray:
    """(N,) derivative of the Geman-McClure score by a^2, 1 at zero."""
    return (OUTLIER_RAD**2 / (angles_rad**2 + OUTLIER_RAD**2)) ** 2


def _refine_rotation(rotation: np.ndarray, found: np.ndarray, true: np.ndarray, operators: np.ndarray) -> np.ndarray:
    """(3, 3) the frame rotation after reweighting to convergence; a Cn group keeps its axis."""
    flip = np.diag([1.0, -1.0, -1.0]) if rotation[2, 2] < 0 and len(operators) > 1 else np.eye(3)
    for _ in range(50):
        mates, angles = closest_mates(found, rotation @ true, operators)
        says = mates.transpose(0, 2, 1) @ found @ true.transpose(0, 2, 1)
        weighted = np.einsum("n,nij->ij", _inlier_weights(angles), says)
        better = _about_z(weighted[None] @ flip)[0] @ flip if len(operators) > 1 else _nearest_rotation(weighted)
        moved, rotation = rotation_angle(better, rotation), better
        if moved < 1e-7:
            break
    return rotation


def _nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """(3, 3) the rotation nearest to a matrix (3, 3); of a sum of rotations, their chordal mean (Procrustes)."""
    u, _, v = np.linalg.svd(matrix)
    return u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v


def _basis(projector: np.ndarray) -> np.ndarray:
    """(3, K) orthonormal columns that span what a symmetric projector keeps."""
    values, vectors = np.linalg.eigh(projector)
    return vectors[:, values > 0.5]
