"""The hand of half maps that began from a map too coarse to have one: each half finds a hand of its own.

The other hand of a map is its inversion at the origin, V(-x): that keeps the axes of every point group, and its transform is
the complex conjugate.
"""
from __future__ import annotations

import numpy as np
import torch

from swiftres_plugin.engine.data.maps import Accumulator
from swiftres_plugin.engine.stages.postprocess import correlation

HALF_TURN = np.diag([-1.0, -1.0, 1.0])  # of an image in its plane
AGREE = 0.3  # FSC down to which half maps are followed,
FARTHER = 1.15  # and times as far that they must agree when one is inverted to be taken for opposite hands,
LEAST_SHELLS = 3  # by so many shells at least: chance does not reach that


def inverted(voxels: torch.Tensor) -> torch.Tensor:
    """A cube (n, n, n) inverted at its origin n // 2."""
    turned = voxels.flip(0, 1, 2)
    return turned if len(voxels) % 2 else turned.roll((1, 1, 1), (0, 1, 2))


def inverted_sums(sums: Accumulator) -> Accumulator:
    """Sums of the inverted map."""
    return Accumulator(sums.numerator.conj().resolve_conj(), sums.weight, sums.count)


def inverted_rotations(image_to_volume: np.ndarray) -> np.ndarray:
    """The orientations (..., 3, 3) at which the inverted map has the same projections, with the same shifts."""
    return image_to_volume @ HALF_TURN


def last_agreed(first: torch.Tensor, second: torch.Tensor) -> int:
    """The last shell before the FSC of two maps first falls below `AGREE`."""
    below = np.flatnonzero(correlation(first, second) < AGREE)
    return int(below[0] - 1) if len(below) else len(first) // 2


def are_opposite(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two half maps agree farther when one of them is inverted."""
    same = last_agreed(first, second)
    return last_agreed(first, inverted(second)) >= max(FARTHER * same, same + LEAST_SHELLS)
