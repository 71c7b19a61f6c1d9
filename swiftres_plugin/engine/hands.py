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
MORE = 1.1  # times the information that halves must share when one is inverted to be taken for opposite hands


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


def shared(first: torch.Tensor, second: torch.Tensor) -> float:
    """Information that two maps share, up to a factor: the sum over shells of -n log(1 - FSC^2) where FSC is positive."""
    curve = correlation(first, second)[1:].clip(0, 0.9999)
    return float((-np.log1p(-curve ** 2) * np.arange(1, len(curve) + 1) ** 2).sum())


def are_opposite(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two half maps share more when one of them is inverted."""
    return shared(first, inverted(second)) > MORE * shared(first, second)
