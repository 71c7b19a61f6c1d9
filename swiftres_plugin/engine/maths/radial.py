"""The radial average of a map: the part of it that looks the same from everywhere."""
from __future__ import annotations

import numpy as np
from scipy.linalg import solveh_banded

KNOTS_PER_PX = 3  # of the profile, a straight line between any two


def angular_part(voxels: np.ndarray, rest: np.ndarray | None = None) -> np.ndarray:
    """A cube (n, n, n) float32 without its radial average about the origin at n//2, in `rest` where that is given.

    The profile is that of least squares: its values at the knots solve a tridiagonal system. Plane by plane, as maps can
    be large.
    """
    n = len(voxels)
    axis = np.arange(n) - n // 2
    across = axis[:, None] ** 2 + axis[None, :] ** 2
    knots = int(np.sqrt(3) * max(-axis[0], axis[-1]) * KNOTS_PER_PX) + 3
    values, square, product = (np.zeros(knots) for _ in range(3))
    for z, plane in zip(axis, voxels):
        below, share = knots_of(across + z ** 2)
        for at, weight in ((below, 1 - share), (below + 1, share)):
            values += np.bincount(at, weight * plane.ravel(), knots)
            square += np.bincount(at, weight ** 2, knots)
        product += np.bincount(below, share * (1 - share), knots)
    unseen = 1e-9 * square.max()  # holds knots that no voxel touches at zero
    profile = solveh_banded(np.stack([np.append(0.0, product[:-1]), square + unseen]), values)
    rest = np.empty_like(voxels, dtype=np.float32) if rest is None else rest
    for z, plane, into in zip(axis, voxels, rest):
        below, share = knots_of(across + z ** 2)
        into[:] = plane - ((1 - share) * profile[below] + share * profile[below + 1]).reshape(n, n)
    return rest


def knots_of(square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For squared radii (px^2): the knot below each, and how far it is on the way to the next."""
    radius = np.sqrt(square.ravel()) * KNOTS_PER_PX
    below = radius.astype(np.int64)
    return below, radius - below
