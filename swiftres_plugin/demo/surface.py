"""A map drawn as a lit surface, by numpy alone."""
from __future__ import annotations

import numpy as np
from scipy import ndimage

FINER = 3
LIGHT = np.array([-0.45, 0.55, 0.70])  # from the upper left, behind the one who looks
AMBIENT, DIFFUSE, SHEEN = 0.38, 0.62, 0.18
CAVITY_PX, CAVITY_DEPTH = 4.5, 0.07
MARGIN_PX = 2


def level_of_volume(voxels: np.ndarray, inside: np.ndarray, count: int) -> float:
    """The level that encloses `count` voxels of the map within `inside` (n, n, n) bool."""
    values = np.sort(voxels[inside])
    return float(values[-min(count, len(values))])


def bounding_box(inside: np.ndarray) -> tuple[slice, slice, slice]:
    """The part of the box that holds `inside` (n, n, n) bool, with a margin, as slices of z, y and x."""
    def extent(axes: tuple[int, int]) -> slice:
        hit = np.flatnonzero(inside.any(axis=axes))
        return slice(max(int(hit[0]) - MARGIN_PX, 0), int(hit[-1]) + MARGIN_PX + 1)
    return extent((1, 2)), extent((0, 2)), extent((0, 1))


def draw_surface(voxels: np.ndarray, level: float, colour: tuple[float, float, float]) -> np.ndarray:
    """(m, m', 4) RGBA picture of the surface `voxels` = `level`, seen from +z with x to the right and y upwards.

    Row 0 is the lowest y. Each pixel looks down -z and is lit by the gradient where it first meets the surface; what
    lies deeper than its surroundings is darker.
    """
    fine = ndimage.zoom(voxels, FINER, order=3)[::-1]  # the first plane is the one nearest to us
    hit, first = (fine > level).any(axis=0), (fine > level).argmax(axis=0)
    normal = _normals(fine, first)
    shade = AMBIENT + DIFFUSE * np.clip(normal @ (LIGHT / np.linalg.norm(LIGHT)), 0, 1)
    depth = np.where(hit, first, np.where(hit, first, 0).max()).astype(float)
    shade -= CAVITY_DEPTH * np.clip(depth - ndimage.gaussian_filter(depth, CAVITY_PX), -2, 6)
    sheen = SHEEN * np.clip(normal[..., 2], 0, 1) ** 12
    picture = np.clip(shade[..., None] * np.array(colour) + sheen[..., None], 0, 1)
    alpha = ndimage.gaussian_filter(hit.astype(float), 0.5)
    return np.dstack([picture, np.clip(alpha, 0, 1)])


def _normals(fine: np.ndarray, first: np.ndarray) -> np.ndarray:
    """(m, m', 3) unit vectors (x, y, z) out of the surface that is met at plane `first` of each pixel."""
    smooth = ndimage.gaussian_filter(fine, 1.0)
    row, column = np.indices(first.shape)
    slopes = [np.gradient(smooth, axis=axis)[first, row, column] for axis in (2, 1, 0)]
    outwards = np.stack([-slopes[0], -slopes[1], slopes[2]], axis=-1)  # planes are counted against z
    return outwards / np.maximum(np.linalg.norm(outwards, axis=-1, keepdims=True), 1e-12)
