"""Views on the sphere: how many from where, and how well they cover Fourier space."""
from __future__ import annotations

import numpy as np
from pwem.convert import getSymmetryMatrices

from swiftres_plugin import convert

DIRECTIONS = 600
MOST_VIEWS = 20_000
LONGEST = 20.0  # of a point spread function that no view confines, in units of one across a view
BISECTIONS = 30


def with_mates(beams: np.ndarray, symmetry: str) -> np.ndarray:
    """(|G| N, 3) beam directions (N, 3) and their mates; the directions alone for a group that Scipion has no name for."""
    try:
        constant, order = convert.scipion_symmetry(symmetry)
    except ValueError:
        return beams
    operators = np.asarray(getSymmetryMatrices(constant, n=order))[:, :3, :3]
    return np.einsum("sij,nj->sni", operators, beams).reshape(-1, 3)


def view_density(beams: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges of longitude (rad) and of the sine of the latitude, and the density (rows, columns) relative to even views."""
    rows = int(np.clip(np.sqrt(len(beams) / 40), 6, 36))  # some twenty a cell
    edges = np.linspace(-np.pi, np.pi, 2 * rows + 1), np.linspace(-1, 1, rows + 1)  # cells of equal area
    longitude = np.arctan2(beams[:, 1], beams[:, 0])
    counts, _, _ = np.histogram2d(longitude, np.clip(beams[:, 2], -1, 1), bins=edges)
    return *edges, (counts / counts.mean()).T


def efficiency(beams: np.ndarray) -> float:
    """E_od = 1 - 2 sigma / mean of Naydenova and Russo (2017), 1 for even views and 0 for none but one.

    sigma and mean are of the distance at which the point spread function of the views falls to 1/e^2, over all directions.
    An image confines the density across its view, exp(-2 |r across|^2), and not along it.
    """
    sample = beams[:: -(-len(beams) // MOST_VIEWS)]
    low, high = np.zeros(DIRECTIONS), np.full(DIRECTIONS, LONGEST)
    directions = even_directions(DIRECTIONS)
    across = (1 - np.clip(directions @ sample.T, -1, 1) ** 2).astype(np.float32)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        above = np.exp(-2 * across * middle[:, None].astype(np.float32) ** 2).mean(axis=1) > np.exp(-2)
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return float(max(0.0, 1 - 2 * high.std() / high.mean()))


def even_directions(count: int) -> np.ndarray:
    """(count, 3) unit vectors on a Fibonacci spiral."""
    z = 1 - (2 * np.arange(count) + 1) / count
    longitude = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    ring = np.sqrt(1 - z ** 2)
    return np.stack([ring * np.cos(longitude), ring * np.sin(longitude), z], axis=1)
