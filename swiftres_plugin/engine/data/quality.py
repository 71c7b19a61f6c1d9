"""What is said of a finished map: how its amplitudes fall, its resolution by direction, how well views cover it."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False, slots=True)
class Guinier:
    """The Guinier plot of a map, and the line through its fine end.

    square_frequency: (S,) 1/A^2; log_amplitude: (S,) logarithm of the mean amplitude of each shell, weighted by the figure
    of merit, -inf where that is zero; fitted: (S,) which shells the line was fitted to; slope (A^2) and intercept of the
    line, NaN when there were too few.
    """

    square_frequency: np.ndarray
    log_amplitude: np.ndarray
    fitted: np.ndarray
    slope: float
    intercept: float

    @property
    def b_factor_a2(self) -> float:
        """B (A^2) that levels the line when amplitudes are multiplied by exp(-B s^2 / 4): negative sharpens. NaN without a
        line."""
        return 4 * self.slope


@dataclass(frozen=True, eq=False, slots=True)
class DirectionalFsc:
    """FSC by direction: direction (K, 3) unit vectors x, y, z of one half sphere; frequency (S,) 1/A; curve (K, S);
    resolution_a (K,), infinite where the first shell is already below the threshold."""

    direction: np.ndarray
    frequency: np.ndarray
    curve: np.ndarray
    resolution_a: np.ndarray

    @property
    def anisotropy(self) -> float:
        """Coarsest over finest resolution, a twentieth of the directions left out at either end: 1 when all are alike."""
        coarse, fine = (np.percentile(1 / self.resolution_a, share) for share in (5, 95))
        return float(fine / coarse) if coarse > 0 else float("inf")


@dataclass(frozen=True, eq=False, slots=True)
class Coverage:
    """The point spread function of an orientation distribution, and the views it comes from.

    direction: (K, 3) unit vectors; extent: (K,) distance at which the function falls to 1/e^2 in that direction, one being
    that of a single image across its view. views: (P, 3) beam directions; share: (P,) of the particles.
    """

    direction: np.ndarray
    extent: np.ndarray
    views: np.ndarray
    share: np.ndarray

    @property
    def efficiency(self) -> float:
        """E_od = 1 - 2 sigma / mean of the extents (Naydenova and Russo 2017, equation 1), not below 0; 1 for even views."""
        return float(max(0.0, 1 - 2 * self.extent.std() / self.extent.mean()))
