"""Images and maps about another point of the particle: they are moved by whole pixels and cut, never interpolated."""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.particles import Particles, Poses
from swiftres_plugin.engine.maths.aberrations import shift_of_image


@dataclass(frozen=True, eq=False, slots=True)
class Window:
    """What is kept of the images: `box_px` pixels about the one that lies `away_px` (N, 2; x, y) from the centre."""

    box_px: int
    away_px: np.ndarray

    def cut(self, images: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(B, m, m) of the images (B, n, n) of the particles at `rows`.

        A window that reaches over a border shows the opposite border there: noise of the right kind.
        """
        moved = [np.roll(image, (-down, -across), (0, 1)) for image, (across, down) in zip(images, self.away_px[rows])]
        inner = _inner(images.shape[-1], self.box_px)
        return np.stack(moved)[:, inner, inner]

    def over_border(self, box_px: int) -> np.ndarray:
        """(N,) whether the window reaches over the border of an image of `box_px`."""
        first = box_px // 2 - self.box_px // 2 + self.away_px
        return ((first < 0) | (first + self.box_px > box_px)).any(axis=1)


def about(particles: Particles, centre_a: np.ndarray, box_px: int) -> tuple[Window, Poses]:
    """The windows in which the point `centre_a` (x, y, z) of the map's frame is nearest to the middle, and the poses there.

    A point c stands in an image at M^T inv(R) c - shift; what is left of that beyond whole pixels is the new shift.
    """
    if particles.poses is None:
        raise ValueError("without poses a point of the map is nowhere in an image")
    turned = centre_a @ particles.poses.image_to_volume
    place_a = shift_of_image(particles, turned[:, :2]) - particles.poses.shift_a
    away_px = np.rint(place_a / particles.pixel_size_a).astype(np.int64)
    return (Window(box_px, away_px),
            replace(particles.poses, shift_a=away_px * particles.pixel_size_a - place_a))


def centre_of_mass(voxels: np.ndarray) -> np.ndarray:
    """(3,) the voxel (x, y, z), from the centre, that is nearest to the centre of mass."""
    axes = np.indices(voxels.shape, sparse=True)
    weights = voxels.astype(np.float64)
    place = [float((axis * weights).sum() / weights.sum()) for axis in axes]
    return np.rint(place).astype(np.int64)[::-1] - len(voxels) // 2


def cut_map(density: Map, centre_px: np.ndarray, box_px: int) -> Map:
    """The map in a box of `box_px` about the voxel `centre_px` (x, y, z) from its centre; zero beyond its border."""
    margin = int(np.abs(centre_px).max())
    first = margin + len(density.voxels) // 2 - box_px // 2 + centre_px[::-1]
    inner = tuple(slice(start, start + box_px) for start in first)
    return replace(density, voxels=np.ascontiguousarray(np.pad(density.voxels, margin)[inner]))


def _inner(size: int, box_px: int) -> slice:
    """The inner `box_px` of `size` pixels, centre upon centre."""
    start = size // 2 - box_px // 2
    return slice(start, start + box_px)
