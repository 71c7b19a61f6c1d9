"""A map as a lit surface that can be turned, by numpy and scipy: rays meet the rotated density."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

WIDEST_PX = 96
LIGHT = np.array([-0.40, 0.50, 0.77])  # from the upper left, behind the one who looks
PLAIN = (0.50, 0.68, 0.85)


@dataclass(frozen=True)
class Scene:
    """Density (m, m, m) in (z, y, x) order and, where there is one, a second map that colours its surface."""

    density: np.ndarray
    colouring: np.ndarray | None = None

    def first_level(self) -> float:
        """A level that encloses two voxels in a hundred."""
        return float(np.quantile(self.density, 0.98))


def scene(density: np.ndarray, colouring: np.ndarray | None = None) -> Scene:
    """A scene no wider than `WIDEST_PX`, so that it turns while one drags it."""
    factor = min(1.0, WIDEST_PX / len(density))
    if factor == 1:
        return Scene(density, colouring)
    return Scene(*(None if one is None else ndimage.zoom(one, factor, order=1) for one in (density, colouring)))


def rotation_of_drag(right_rad: float, up_rad: float) -> np.ndarray:
    """(3, 3) rotation of (x, y, z) about the screen's axes: the front follows the pointer."""
    c, s, d, e = np.cos(right_rad), np.sin(right_rad), np.cos(up_rad), np.sin(up_rad)
    about_y = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    about_x = np.array([[1, 0, 0], [0, d, e], [0, -e, d]])
    return about_x @ about_y


def draw(shown: Scene, level: float, rotation: np.ndarray, finer: float = 1.0) -> tuple[np.ndarray, np.ndarray | None]:
    """Shade (p, p), NaN beside the surface, and the colouring map's values there; seen from +z, row 0 is the lowest y.

    rotation: (3, 3), carries (x, y, z) of the map to those of the screen; finer: samples a voxel along each axis.
    """
    turned = rotated(shown.density, rotation, finer)[::-1]  # the first plane is the one nearest to us
    hit, first = (turned > level).any(axis=0), (turned > level).argmax(axis=0)
    normal = normals(ndimage.gaussian_filter(turned, 0.7 * finer), first)
    shade = 0.30 + 0.70 * np.clip(normal @ (LIGHT / np.linalg.norm(LIGHT)), 0, 1)
    shade *= 1 - 0.25 * first / len(turned)  # what is far is darker
    values = None
    if shown.colouring is not None:
        values = np.take_along_axis(rotated(shown.colouring, rotation, finer)[::-1], first[None], axis=0)[0]
    return np.where(hit, shade, np.nan), values


def rotated(voxels: np.ndarray, rotation: np.ndarray, finer: float) -> np.ndarray:
    """The map turned about voxel n // 2, sampled `finer` times as densely; zero outside."""
    n = len(voxels)
    size = round(n * finer)
    inverse = rotation.T[::-1, ::-1]  # array axes are (z, y, x)
    centre = np.full(3, n // 2)
    offset = centre - inverse @ (np.full(3, size // 2) / finer)
    return ndimage.affine_transform(voxels, inverse / finer, offset, (size,) * 3, order=1)


def normals(smooth: np.ndarray, first: np.ndarray) -> np.ndarray:
    """(p, p, 3) unit vectors (x, y, z) out of the density at plane `first` of each pixel."""
    row, column = np.indices(first.shape)
    last = np.array(smooth.shape) - 1

    def along(axis: int) -> np.ndarray:
        ahead, behind = [first, row, column], [first, row, column]
        ahead[axis], behind[axis] = np.minimum(ahead[axis] + 1, last[axis]), np.maximum(behind[axis] - 1, 0)
        return smooth[tuple(ahead)] - smooth[tuple(behind)]

    outwards = np.stack([-along(2), -along(1), along(0)], axis=-1)  # planes are counted against z
    return outwards / np.maximum(np.linalg.norm(outwards, axis=-1, keepdims=True), 1e-12)


def coloured(shade: np.ndarray, colours: np.ndarray | tuple[float, float, float] = PLAIN) -> np.ndarray:
    """(p, p, 4) RGBA of a shade (p, p) in one colour or in colours (p, p, 3); transparent where there is no surface."""
    seen = np.isfinite(shade)
    lit = np.where(seen, shade, 0)[..., None] * np.asarray(colours)
    return np.dstack([np.clip(lit, 0, 1), seen.astype(float)])
