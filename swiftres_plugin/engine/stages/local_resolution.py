"""Local resolution: the Fourier shell correlation of two half maps inside a window, at every place of the map.

The windowed FSC of Cardone et al. (2013, J. Struct. Biol. 184, 226) taken in another order: each half map is first cut
into bands of frequency, and the window then sums products of the two within a band. A band is as wide as the window is
narrow, so that nothing is resolved that the window blurs, and a sharp window adds no correlation of its own.
"""
from __future__ import annotations

import numpy as np
import torch

from swiftres_plugin.engine.data.maps import HalfMaps
from swiftres_plugin.engine.maths.fourier import shell_sums, shells_3d

WINDOW_RESOLUTIONS = 7.0  # diameter of the window in units of the resolution (Cardone et al. 2013)
LEAST_WINDOW_PX = 14.0
LARGEST_WINDOW = 1 / 2  # of the box
BAND_OF_WINDOW = 1.5  # half the foot of a band in units of 1 / window: what is cut so in frequency spreads by half a window
PLACES_PER_WINDOW = 6  # the window moves by this share of its diameter


def local_resolution(halves: HalfMaps, support: np.ndarray, resolution_a: float, threshold: float) -> np.ndarray:
    """Resolution (n, n, n) float32 in A where `support` (n, n, n) is true, zero elsewhere.

    resolution_a: of the whole map, which sets the size of the window; threshold: correlation that counts as resolved.
    No voxel is finer than Nyquist, none coarser than the first band.
    """
    n, pixel_a = halves.first.box_px, halves.first.pixel_size_a
    window_px = float(np.clip(WINDOW_RESOLUTIONS * resolution_a / pixel_a, LEAST_WINDOW_PX, LARGEST_WINDOW * n))
    width = BAND_OF_WINDOW * n / window_px
    centres = np.arange(width, n // 2 - width / 4, width / 2)
    spectra = [whitened(h.voxels) for h in (halves.first, halves.second)]
    places = np.arange(0, n, max(1, int(window_px / PLACES_PER_WINDOW)))
    window = window_at(places, n, window_px)
    radius = _radius(n)
    curves = np.stack([band_correlation(spectra, radius, float(c), width, window) for c in centres])
    frequency = crossing(curves, centres, threshold) / (n * pixel_a)
    return np.where(support, 1 / everywhere(frequency, places, n), 0).astype(np.float32)


def whitened(voxels: np.ndarray) -> torch.Tensor:
    """`rfftn` of a cube with mean power one on each shell, so that no part of a band outweighs another; no mean."""
    n = len(voxels)
    spectrum = torch.fft.rfftn(torch.from_numpy(np.ascontiguousarray(voxels, dtype=np.float32)))
    shells = shells_3d(n)
    last = int(shells.max())
    number = shell_sums(torch.ones_like(spectrum.real), shells, last + 1)
    power = shell_sums(spectrum.abs() ** 2, shells, last + 1) / number
    gain = power.clamp(min=1e-30).rsqrt().float()
    gain[0] = 0
    return spectrum * gain[shells]


def _radius(n: int) -> torch.Tensor:
    """Distance from the origin of every coefficient of `rfftn` of a cube, in shells."""
    axis = torch.fft.fftfreq(n, 1 / n)
    last = torch.arange(n // 2 + 1, dtype=axis.dtype)
    return (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + last ** 2).sqrt()


def window_at(places: np.ndarray, n: int, diameter_px: float) -> torch.Tensor:
    """(P, n) weights along one axis around each of P places: a cosine bell that ends at half the diameter."""
    distance = np.abs(np.arange(n) - places[:, None]) / (diameter_px / 2)
    return torch.from_numpy(np.cos(np.pi / 2 * distance.clip(max=1)) ** 2).float()


def band_correlation(spectra: list[torch.Tensor], radius: torch.Tensor, centre: float, width: float,
                     window: torch.Tensor) -> np.ndarray:
    """(P, P, P) correlation of two maps around `centre` (shells), within the window at every place."""
    n = len(radius)
    gain = torch.cos(np.pi / 2 * ((radius - centre) / width).clamp(-1, 1)) ** 2
    first, second = (torch.fft.irfftn(s * gain, s=(n, n, n)) for s in spectra)
    cross, one, two = (windowed(product, window) for product in (first * second, first ** 2, second ** 2))
    return (cross / (one * two).sqrt().clamp(min=1e-30)).numpy()


def windowed(cube: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """(P, P, P) sums of a cube (n, n, n) under the window at every place."""
    for _ in range(3):
        cube = torch.tensordot(cube, window.T, dims=([0], [0]))  # the axes turn round: after three they are as before
    return cube


def crossing(curves: np.ndarray, centres: np.ndarray, threshold: float) -> np.ndarray:
    """(...) frequency where curves (J, ...) over `centres` (J,) first fall below the threshold, interpolated."""
    below = curves < threshold
    index = np.where(below.any(0), below.argmax(0), len(centres) - 1)
    before = np.maximum(index - 1, 0)
    high, low = (np.take_along_axis(curves, i[None], 0)[0] for i in (before, index))
    share = np.clip((high - threshold) / np.maximum(high - low, 1e-6), 0, 1)
    between = centres[before] + share * (centres[index] - centres[before])
    return np.where(below.any(0), between, centres[-1])


def everywhere(values: np.ndarray, places: np.ndarray, n: int) -> np.ndarray:
    """(n, n, n) values at P places along each axis, interpolated linearly to every voxel."""
    at = np.clip(np.arange(n), places[0], places[-1])
    right = np.clip(np.searchsorted(places, at, side="right"), 1, len(places) - 1)
    share = (at - places[right - 1]) / (places[right] - places[right - 1])
    matrix = np.zeros((n, len(places)))
    matrix[np.arange(n), right - 1] = 1 - share
    matrix[np.arange(n), right] += share
    for _ in range(3):
        values = np.tensordot(values, matrix.T, axes=([0], [0]))
    return values
