"""Sharpening: how fast amplitudes fall with resolution (Guinier plot), and the map with that fall undone."""
from __future__ import annotations

import numpy as np
import torch

from swiftres_plugin.engine.data.maps import Fsc, Map
from swiftres_plugin.engine.data.quality import Guinier
from swiftres_plugin.engine.maths.cubes import cube_spectrum, spectrum_slabs
from swiftres_plugin.engine.maths.fourier import add_to_shells, filter_shells, low_pass_gain, shells_3d
from swiftres_plugin.engine.maths.padded import Empty

GUINIER_FROM_A = 10.0  # coarser than this the plot shows the shape of the particle, not the fall of its amplitudes
LEAST_SHELLS = 5  # a line through fewer says nothing


def figure_of_merit(fsc: Fsc) -> np.ndarray:
    """(S,) correlation of the average of both halves with the noiseless map, sqrt(2 FSC / (1 + FSC)) (Rosenthal and
    Henderson 2003, J. Mol. Biol. 333, 721); zero from the first shell whose corrected FSC is not positive."""
    curve = np.clip(fsc.corrected, 0.0, 1.0)
    empty = np.flatnonzero(curve[1:] <= 0)
    if len(empty):
        curve[int(empty[0]) + 1:] = 0.0
    return np.sqrt(2 * curve / (1 + curve))


def guinier(average: Map, mask: np.ndarray, fsc: Fsc, finest_a: float, empty: Empty | None = None) -> Guinier:
    """The Guinier plot of the average of two half maps, with a line from 10 A to `finest_a`, each shell counting once.

    Of what is inside the mask, where the corrected FSC holds: the noise of the solvent would flatten the plot.
    """
    amplitude = mean_amplitudes(average.voxels, mask, empty) * figure_of_merit(fsc)
    with np.errstate(divide="ignore"):
        height = np.log(amplitude)
    fitted = (fsc.frequency >= 1 / GUINIER_FROM_A) & (fsc.frequency <= 1 / finest_a) & np.isfinite(height)
    slope, intercept = np.nan, np.nan
    if np.count_nonzero(fitted) >= LEAST_SHELLS:
        slope, intercept = np.polyfit(fsc.frequency[fitted] ** 2, height[fitted], 1)
    return Guinier(fsc.frequency ** 2, height, fitted, float(slope), float(intercept))


def mean_amplitudes(voxels: np.ndarray, mask: np.ndarray, empty: Empty | None = None) -> np.ndarray:
    """(n//2+1,) mean amplitude of the Fourier coefficients on each shell of a cube within a mask."""
    n, count = len(voxels), len(voxels) // 2 + 1
    amplitude, number = (torch.zeros(count + 1, dtype=torch.float64) for _ in range(2))
    spectrum = cube_spectrum(lambda slab: torch.from_numpy(np.float32(voxels[slab] * mask[slab])), n, empty)
    for slab in spectrum_slabs(spectrum):
        shells, part = shells_3d(n, planes=slab), spectrum[slab].abs()
        add_to_shells(amplitude, part, shells)
        add_to_shells(number, torch.ones_like(part), shells)
    return (amplitude / number)[:count].numpy()


def sharpened(average: Map, fsc: Fsc, b_factor_a2: float, resolution_a: float, empty: Empty | None = None) -> Map:
    """The average of two half maps weighted by its figure of merit, times exp(-B s^2 / 4), low-passed at the resolution."""
    falling = np.exp(-b_factor_a2 / 4 * fsc.frequency ** 2) * figure_of_merit(fsc)
    gain = torch.from_numpy(falling) * low_pass_gain(average.box_px, average.pixel_size_a, resolution_a)
    voxels = torch.from_numpy(np.ascontiguousarray(average.voxels, dtype=np.float32))
    return Map(filter_shells(voxels, gain, empty).numpy(), average.pixel_size_a, average.origin_a)
