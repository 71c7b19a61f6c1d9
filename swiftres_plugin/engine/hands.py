"""The hand of half maps that began from a map too coarse to have one: each half finds a hand of its own.

The other hand of a map is its inversion at the origin, V(-x): that keeps the axes of every point group, and its transform is
the complex conjugate.
"""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from swiftres_plugin.engine.data.maps import Accumulator
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.maths.cubes import Planes, planes_of
from swiftres_plugin.engine.maths.padded import Empty, beside, slabs
from swiftres_plugin.engine.stages.postprocess import correlation_of

HALF_TURN = np.diag([-1.0, -1.0, 1.0])  # of an image in its plane
AGREE = 0.3  # FSC down to which half maps are followed,
FARTHER = 1.15  # and times as far that they must agree when one is inverted to be taken for opposite hands,
LEAST_SHELLS = 3  # by so many shells at least: chance does not reach that


def inverted(voxels: torch.Tensor, empty: Empty | None = None) -> torch.Tensor:
    """A cube (n, n, n) inverted at its origin n // 2; empty: makes it."""
    planes, found = inverted_planes(voxels), beside(voxels, empty)(tuple(voxels.shape), voxels.dtype)
    for slab in slabs(len(voxels), voxels[0].nbytes):
        found[slab] = planes(slab)
    return found


def inverted_planes(voxels: torch.Tensor) -> Planes:
    """The planes of the inverted cube."""
    n = len(voxels)
    past = 1 - n % 2  # voxel 0 of an even box has no other side: it stands for both

    def planes(slab: slice) -> torch.Tensor:
        other = (past - 1 - torch.arange(slab.start, slab.stop)) % n
        return voxels[other].flip(1, 2).roll((past, past), (1, 2))

    return planes


def inverted_sums(sums: Accumulator) -> Accumulator:
    """Sums of the inverted map; a view."""
    return Accumulator(sums.numerator.conj(), sums.weight, sums.count)


def inverted_rotations(image_to_volume: np.ndarray) -> np.ndarray:
    """The orientations (..., 3, 3) at which the inverted map has the same projections, with the same shifts."""
    return image_to_volume @ HALF_TURN


def with_inverted(assignment: Assignment, chosen: np.ndarray) -> Assignment:
    """The poses, with those of the `chosen` particles (N,) in the inverted map."""
    rotation = np.where(chosen[:, None, None], inverted_rotations(assignment.image_to_volume), assignment.image_to_volume)
    return replace(assignment, image_to_volume=rotation)


def last_agreed(first: Planes, second: Planes, box_px: int, empty: Empty | None = None) -> int:
    """The last shell before the FSC of two maps first falls below `AGREE`."""
    below = np.flatnonzero(correlation_of(first, second, box_px, empty) < AGREE)
    return int(below[0] - 1) if len(below) else box_px // 2


def are_opposite(first: torch.Tensor, second: torch.Tensor, empty: Empty | None = None) -> bool:
    """Whether two half maps agree farther when one of them is inverted; empty: makes their transforms."""
    same = last_agreed(planes_of(first), planes_of(second), len(first), empty)
    mirrored = last_agreed(planes_of(first), inverted_planes(second), len(first), empty)
    return mirrored >= max(FARTHER * same, same + LEAST_SHELLS)
