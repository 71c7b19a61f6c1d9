"""Half maps whose amplitudes, noise and resolution are known, made in Fourier space without the engine."""
from __future__ import annotations

import numpy as np

from swiftres_plugin.engine.data.maps import HalfMaps, Map


def frequencies(box_px: int, pixel_size_a: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z, y, x spatial frequencies (1/A) of `fftn` of a cube, to be broadcast."""
    axis = np.fft.fftfreq(box_px, pixel_size_a)
    return axis[:, None, None], axis[None, :, None], axis[None, None, :]


def filtered(voxels: np.ndarray, gain: np.ndarray) -> np.ndarray:
    return np.fft.ifftn(np.fft.fftn(voxels) * gain).real


def falling(box_px: int, pixel_size_a: float, b_factor_a2: float) -> np.ndarray:
    """exp(-B s^2 / 4) of every coefficient."""
    z, y, x = frequencies(box_px, pixel_size_a)
    return np.exp(-b_factor_a2 / 4 * (z ** 2 + y ** 2 + x ** 2))


def white(box_px: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((box_px,) * 3)


def distance_px(box_px: int) -> np.ndarray:
    """Distance of every voxel from the centre."""
    z, y, x = np.indices((box_px,) * 3) - box_px // 2
    return np.sqrt(x ** 2 + y ** 2 + z ** 2)


def pair(signal: np.ndarray, noise: float, pixel_size_a: float, seed: int = 11) -> HalfMaps:
    """The signal twice, with independent white noise of this deviation."""
    n = len(signal)
    return HalfMaps(*(Map((signal + noise * white(n, seed + k)).astype(np.float32), pixel_size_a) for k in (0, 1)))


def particle(box_px: int, pixel_size_a: float, b_factor_a2: float, noise: float, seed: int = 5) -> HalfMaps:
    """A ball of random density whose amplitudes fall with `b_factor_a2`, in noise."""
    inside = distance_px(box_px) < 0.3 * box_px
    signal = filtered(white(box_px, seed) * inside, falling(box_px, pixel_size_a, b_factor_a2))
    return pair(signal, noise, pixel_size_a)
