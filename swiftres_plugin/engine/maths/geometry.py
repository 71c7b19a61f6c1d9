"""Rotations and directions: conversions, distances, means and quasi-uniform grids.

A rotation is `image_to_volume` of docs/conventions.md, an active right-handed matrix R = Rz(rot) @ Ry(tilt) @ Rz(psi).
Functions of host arrays are numpy float64; `rotation_vector_to_matrix`, used inside the optimiser, is torch.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import healpix
import numpy as np
import torch
from scipy.spatial.transform import Rotation

# The side of a HEALPix pixel as a square of the same area: sqrt(4 pi / 12) / nside.
HEALPIX_SIDE_RAD = math.sqrt(math.pi / 3)
# Into how many a finer grid divides each direction, in-plane angle and shift of a grid twice as wide.
DIRECTION_PARTS, TURN_PARTS, SHIFT_PARTS = 4, 2, 4
_CORNERS = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])


def euler_to_matrix(
        rot_rad: np.ndarray | float, tilt_rad: np.ndarray | float, psi_rad: np.ndarray | float) -> np.ndarray:
    """(..., 3, 3) Rz(rot) @ Ry(tilt) @ Rz(psi) of angles (...,) in radians; the angles broadcast."""
    rot, tilt, psi = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (rot_rad, tilt_rad, psi_rad)))
    cr, sr, ct, st, cp, sp = np.cos(rot), np.sin(rot), np.cos(tilt), np.sin(tilt), np.cos(psi), np.sin(psi)
    entries = (
        cr * ct * cp - sr * sp, -cr * ct * sp - sr * cp, cr * st,
        sr * ct * cp + cr * sp, -sr * ct * sp + cr * cp, sr * st,
        -st * cp, st * sp, ct)
    return np.stack(entries, axis=-1).reshape(*rot.shape, 3, 3)


def matrix_to_euler(image_to_volume: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rot, tilt, psi), each (...,) radians, of rotations (..., 3, 3); tilt in [0, pi], the others in [-pi, pi].

    Within 1e-7 of the poles, where only rot + psi (or psi - rot) is defined, rot is 0.
    """
    r = np.asarray(image_to_volume, dtype=np.float64)
    sine = np.hypot(r[..., 0, 2], r[..., 1, 2])
    tilt = np.arctan2(sine, r[..., 2, 2])
    pole = sine < 1e-7
    rot = np.where(pole, 0.0, np.arctan2(r[..., 1, 2], r[..., 0, 2]))
    psi = np.where(pole, np.arctan2(r[..., 1, 0], r[..., 1, 1]), np.arctan2(r[..., 2, 1], -r[..., 2, 0]))
    return rot, tilt, psi


def rotation_angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(...,) radians in [0, pi]: the angle of inv(a) @ b for rotations (..., 3, 3) that broadcast.

    From the chord, |a - b| = 2 sqrt(2) sin(angle / 2), which unlike the trace keeps small angles.
    """
    chord = np.linalg.norm(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64), axis=(-2, -1))
    return 2 * np.arcsin(np.minimum(chord / math.sqrt(8), 1.0))


def rotation_vector_to_matrix(vector_rad: torch.Tensor) -> torch.Tensor:
    """(..., 3, 3) rotations of rotation vectors (..., 3), axis times angle in radians (Rodrigues); safe at zero."""
    angle = torch.linalg.vector_norm(vector_rad, dim=-1)[..., None, None]
    x, y, z = vector_rad.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=vector_rad.dtype, device=vector_rad.device)
    # torch.sinc(t) is sin(pi t) / (pi t); (1 - cos a) / a^2 = sinc(a / 2)^2 / 2 without the cancellation
    return identity + torch.sinc(angle / math.pi) * cross + torch.sinc(angle / (2 * math.pi)) ** 2 / 2 * (cross @ cross)


def random_rotations(count: int, generator: np.random.Generator) -> np.ndarray:
    """(count, 3, 3) rotations, uniform on SO(3)."""
    return Rotation.from_quat(generator.normal(size=(count, 4))).as_matrix()


def perturbed(rotations: np.ndarray, angle_rad: float, generator: np.random.Generator) -> np.ndarray:
    """(N, 3, 3) rotations, each turned by a rotation vector from the ball of radius `angle_rad`, evenly."""
    axis = generator.normal(size=(len(rotations), 3))
    length = angle_rad * generator.random(len(rotations)) ** (1 / 3) / np.linalg.norm(axis, axis=1)
    return rotations @ Rotation.from_rotvec(axis * length[:, None]).as_matrix()


def mean_rotation(rotations: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """(..., 3, 3) the rotation nearest to all of (..., N, 3, 3), weighted (..., N).

    The principal eigenvector of the weighted sum of q q^T over the quaternions q (Markley et al. 2007).
    """
    rotations = np.asarray(rotations, dtype=np.float64)
    quaternions = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_quat().reshape(*rotations.shape[:-2], 4)
    weight = np.ones(rotations.shape[:-2]) if weights is None else weights
    _, vectors = np.linalg.eigh(np.einsum("...n,...ni,...nj->...ij", weight, quaternions, quaternions))
    return Rotation.from_quat(vectors[..., -1].reshape(-1, 4)).as_matrix().reshape(*rotations.shape[:-3], 3, 3)


def direction_grid(step_rad: float) -> np.ndarray:
    """(G, 3) unit vectors, one for each of G equal areas of side `step_rad` or a little less (HEALPix, ring order)."""
    resolution = max(1, math.ceil(HEALPIX_SIDE_RAD / step_rad - 1e-9))
    return np.stack(healpix.pix2vec(resolution, np.arange(12 * resolution**2)), axis=-1)


def rotations_from_directions(directions: np.ndarray) -> np.ndarray:
    """(..., 3, 3) rotations with psi = 0 whose third column, the beam, is the unit vector (..., 3)."""
    x, y, z = np.moveaxis(np.asarray(directions, dtype=np.float64), -1, 0)
    return euler_to_matrix(np.arctan2(y, x), np.arctan2(np.hypot(x, y), z), 0.0)


def in_plane_grid(step_rad: float, even: bool = False) -> np.ndarray:
    """(P,) psi in [0, 2 pi), evenly spaced by `step_rad` or a little less; an `even` number of them where that is wanted."""
    count = max(1, math.ceil(2 * math.pi / step_rad - 1e-9))
    count += count % 2 if even else 0
    return np.arange(count) * (2 * math.pi / count)


def so3_grid(step_rad: float) -> np.ndarray:
    """(G * P, 3, 3) quasi-uniform rotations: every direction with every in-plane angle, psi fastest.

    The product is uniform because SO(3) is locally sphere x circle with that measure (Hopf; Yershova et al. 2010).
    """
    psi = euler_to_matrix(0.0, 0.0, in_plane_grid(step_rad))
    return (rotations_from_directions(direction_grid(step_rad))[:, None] @ psi).reshape(-1, 3, 3)


def shift_grid(max_shift_a: float, step_a: float) -> np.ndarray:
    """Square grid points within a circle: (S, 2) angstroms, the origin among them, nearest first."""
    count = int(np.ceil(max_shift_a / step_a))
    axis = np.arange(-count, count + 1) * step_a
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    radius = np.hypot(grid[:, 0], grid[:, 1])
    inside = radius <= max_shift_a + 0.5 * step_a
    return grid[inside][np.argsort(radius[inside], kind="stable")]


@dataclass(frozen=True, eq=False, slots=True)
class PoseGrid:
    """Every frame (G, 3, 3) turned by every angle (P,) in its plane, at every shift (S, 2); and how far these are apart."""

    frames: np.ndarray
    psi_rad: np.ndarray
    shifts_a: np.ndarray
    step_rad: float
    step_a: float

    def finer(self) -> PoseGrid:
        """The centres of the parts of the cells about these poses: those of frame g are 4 g .. 4 g + 3, and so on."""
        turns = Rotation.from_rotvec(np.concatenate([self.step_rad / 4 * _CORNERS, np.zeros((DIRECTION_PARTS, 1))], axis=1))
        halves = np.array([-0.5, 0.5]) * math.pi / len(self.psi_rad)
        frames = (self.frames[:, None] @ turns.as_matrix()).reshape(-1, 3, 3)
        shifts_a = (self.shifts_a[:, None] + self.step_a / 4 * _CORNERS).reshape(-1, 2)
        return PoseGrid(frames, (self.psi_rad[:, None] + halves).ravel(), shifts_a, self.step_rad / 2, self.step_a / 2)


def direction_counts(directions: np.ndarray, step_rad: float) -> np.ndarray:
    """(G,) how many of the unit vectors (N, 3) fall to each direction of `direction_grid(step_rad)`."""
    resolution = max(1, math.ceil(HEALPIX_SIDE_RAD / step_rad - 1e-9))
    pixels = healpix.vec2pix(resolution, *np.moveaxis(directions, -1, 0))
    return np.bincount(pixels, minlength=12 * resolution ** 2)
