"""Maps, the sums they are reconstructed from, and their Fourier shell correlation."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

STAYS = 3  # shells that a curve must stay below a threshold: a single one may hold next to no power


def first_to_stay_below(values: np.ndarray, threshold: float, stays: int = STAYS) -> int:
    """Where (S,) values first fall below a threshold for so many in a row, or to their end; S where they never do."""
    below = values < threshold
    crossed = below.copy()
    for further in range(1, stays):
        crossed[:-further] &= below[further:]
    return int(crossed.argmax()) if crossed.any() else len(values)


@dataclass(frozen=True, eq=False, slots=True)
class Map:
    """A density map: voxels (n, n, n) float32 in (z, y, x) order, white particle on black."""

    voxels: np.ndarray
    pixel_size_a: float
    origin_a: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if self.voxels.ndim != 3 or len(set(self.voxels.shape)) != 1:
            raise ValueError(f"a map is a cube, got {self.voxels.shape}")

    @property
    def box_px(self) -> int:
        return self.voxels.shape[0]


@dataclass(frozen=True, eq=False, slots=True)
class Accumulator:
    """Partial sums of a reconstruction, half-complex (m, m, m//2+1) on the padded grid.

    numerator: sum of weight * CTF * image / noise (complex); weight: sum of weight * CTF^2 / noise; count: particles.
    """

    numerator: torch.Tensor
    weight: torch.Tensor
    count: float

    def __add__(self, other: Accumulator) -> Accumulator:
        return Accumulator(self.numerator + other.numerator, self.weight + other.weight, self.count + other.count)

    def without(self, other: Accumulator) -> Accumulator:
        """These sums without those of some of the particles in them."""
        return Accumulator(self.numerator - other.numerator, self.weight - other.weight, self.count - other.count)


@dataclass(frozen=True, eq=False, slots=True)
class HalfMaps:
    """Two independently refined maps of the same particle."""

    first: Map
    second: Map

    @property
    def average(self) -> Map:
        return Map((self.first.voxels + self.second.voxels) / 2, self.first.pixel_size_a, self.first.origin_a)


@dataclass(frozen=True, eq=False, slots=True)
class Fsc:
    """Fourier shell correlations of two half maps, one value per shell 0..n//2; frequency in 1/A."""

    frequency: np.ndarray
    unmasked: np.ndarray
    masked: np.ndarray
    randomised: np.ndarray
    corrected: np.ndarray

    def resolution_a(self, threshold: float = 0.143, curve: str = "corrected", stays: int = STAYS) -> float:
        """Resolution (A) of the first crossing below `threshold` that stays below for so many shells, interpolated.

        Hollow particles have shells of next to no power, where the curve dips. Never finer than the last shell; infinity
        when the curve is below the threshold from the first shell on.
        """
        values = getattr(self, curve)
        s = 1 + first_to_stay_below(values[1:], threshold, stays)
        if s == len(values):
            return float(1 / self.frequency[-1])
        if s == 1:
            return float("inf")
        high, low = values[s - 1], values[s]
        at = self.frequency[s - 1] + (high - threshold) / max(high - low, 1e-9) * (self.frequency[s] - self.frequency[s - 1])
        return float(1 / at)
