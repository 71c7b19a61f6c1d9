"""How evenly the particles' orientations cover Fourier space, after Naydenova and Russo (2017, Nat. Commun. 8, 629)."""
from __future__ import annotations

import numpy as np

from swiftres_plugin.engine.data.quality import Coverage

LEVEL = np.exp(-2.0)  # of the point spread function, where its size is measured
BISECTIONS = 40


def coverage(views: np.ndarray, weights: np.ndarray, directions: np.ndarray, longest: float) -> Coverage:
    """Extent of the point spread function along each of `directions` (K, 3).

    views: (P, 3) beam directions in the volume, weights: (P,) how many particles have them. An image with a Gaussian
    fall-off constrains the density across its view and not along it: its point spread function is a rod
    exp(-2 |r across the view|^2), and that of the set is their mean. Rods end at `longest`, the diameter of the
    particle in units of the resolution: a slice of Fourier space is as thick as the particle is wide.
    """
    across = 1 - np.clip(directions @ views.T, -1, 1) ** 2
    share = weights / weights.sum()
    low, high = np.zeros(len(directions)), np.full(len(directions), float(longest))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        above = np.exp(-2 * across * middle[:, None] ** 2) @ share > LEVEL
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return Coverage(directions, high, views, share)
