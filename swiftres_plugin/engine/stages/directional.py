"""Directional Fourier shell correlation: in cones around directions, after Tan et al. (2017, Nat. Methods 14, 793)."""
from __future__ import annotations

import numpy as np
import torch

from swiftres_plugin.engine.data.maps import Fsc, HalfMaps
from swiftres_plugin.engine.data.quality import DirectionalFsc

CONE_RAD = np.deg2rad(20.0)


def half_sphere(directions: np.ndarray) -> np.ndarray:
    """One of each pair of opposite directions (K, 3): Fourier transforms of real maps are the same both ways."""
    x, y, z = np.round(directions, 9).T
    return directions[(z > 0) | ((z == 0) & ((y > 0) | ((y == 0) & (x > 0))))]


def directional_fsc(halves: HalfMaps, mask: np.ndarray, fsc: Fsc, directions: np.ndarray,
                    threshold: float) -> DirectionalFsc:
    """FSC of the masked half maps in a cone of 20 degrees around each of `directions` (K, 3), and its crossings.

    What the mask alone correlates, known from `fsc` as a mean over all directions, is taken away as there.
    """
    curves = cone_correlations(halves.first.voxels * mask, halves.second.voxels * mask, directions)
    late = fsc.corrected != fsc.masked
    alone = np.where(late, fsc.randomised, 0.0)
    curves = (curves - alone) / np.maximum(1 - alone, 1e-3)
    limits = [Fsc(fsc.frequency, c, c, np.zeros_like(c), c).resolution_a(threshold) for c in curves]
    return DirectionalFsc(directions, fsc.frequency, curves, np.array(limits))


def cone_correlations(first: np.ndarray, second: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(K, n//2+1) correlation of two cubes in each cone, summed over every shell and its two neighbours.

    1 at the origin, and where there is no coefficient. A shell alone holds few in a cone, and the mask blends
    neighbours anyway.
    """
    n = len(first)
    a, b = (torch.fft.rfftn(torch.from_numpy(np.ascontiguousarray(v, dtype=np.float32))).reshape(-1) for v in (first, second))
    products = torch.stack([(a * b.conj()).real, a.abs() ** 2, b.abs() ** 2])
    wave = _waves(n)
    radius = wave.norm(dim=1)
    shell = radius.round().long()
    axes = torch.from_numpy(directions).float().T
    sums = torch.zeros(3, n // 2 + 2, len(directions))
    for s in range(1, n // 2 + 1):
        rows = torch.nonzero(shell == s)[:, 0]
        cosine = (wave[rows] @ axes).abs() / radius[rows, None]
        sums[:, s] = products[:, rows] @ (cosine >= np.cos(CONE_RAD)).float()
    cross, one, two = sums[:, :-2] + sums[:, 1:-1] + sums[:, 2:]
    curves = torch.ones(len(directions), n // 2 + 1)
    curves[:, 1:] = torch.where(one > 0, cross / (one * two).sqrt().clamp(min=1e-30), 1.0).T
    return curves.numpy().astype(np.float64)


def _waves(n: int) -> torch.Tensor:
    """(L, 3) x, y, z wave numbers of the coefficients of `rfftn` of a cube, flattened."""
    axis = torch.fft.fftfreq(n, 1 / n)
    z, y, x = torch.meshgrid(axis, axis, torch.arange(n // 2 + 1, dtype=axis.dtype), indexing="ij")
    return torch.stack([x, y, z], dim=-1).reshape(-1, 3)
