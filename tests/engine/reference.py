"""The engine's mathematics once more, plain and slow: numpy, float64, sums written out."""
from __future__ import annotations

import numpy as np

from swiftres_plugin.engine.data.particles import Particles


def wavelength_a(voltage_kv: float) -> float:
    volts = voltage_kv * 1000
    return 12.2643247 / np.sqrt(volts * (1 + 0.978466e-6 * volts))


def contrast_transfer(kx: np.ndarray, ky: np.ndarray, u_a: float, v_a: float, angle_rad: float, phase_rad: float,
                      voltage_kv: float, cs_mm: float, amplitude: float) -> np.ndarray:
    """CTF at spatial frequencies (1/A), from the formula of docs/conventions.md."""
    square = kx ** 2 + ky ** 2
    defocus = (u_a + v_a) / 2 + (u_a - v_a) / 2 * np.cos(2 * (np.arctan2(ky, kx) - angle_rad))
    lam = wavelength_a(voltage_kv)
    chi = np.pi * lam * defocus * square - np.pi / 2 * cs_mm * 1e7 * lam ** 3 * square ** 2 + phase_rad
    return np.sin(chi + np.arcsin(amplitude))


def frequencies(box_px: int, pixel_size_a: float) -> tuple[np.ndarray, np.ndarray]:
    """kx and ky (n, n) in 1/A in the order of numpy's fft2."""
    axis = np.fft.fftfreq(box_px, pixel_size_a)
    ky, kx = np.meshgrid(axis, axis, indexing="ij")
    return kx, ky


def transfer_of(particles: Particles, row: int) -> np.ndarray:
    """(n, n) CTF of one particle in the order of numpy's fft2."""
    optics, ctf = particles.optics[particles.optics_group[row]], particles.ctf
    kx, ky = frequencies(optics.box_px, optics.pixel_size_a)
    found = contrast_transfer(kx, ky, ctf.defocus_u_a[row], ctf.defocus_v_a[row], ctf.defocus_angle_rad[row],
                              ctf.phase_shift_rad[row], optics.voltage_kv, optics.spherical_aberration_mm,
                              optics.amplitude_contrast)
    return np.abs(found) if optics.phase_flipped else found


def through_ctf(image: np.ndarray, transfer: np.ndarray) -> np.ndarray:
    return np.fft.ifft2(np.fft.fft2(image) * transfer).real


def image_transform(image: np.ndarray, wave_px: np.ndarray) -> np.ndarray:
    """Orthonormal transform of an image (n, n) about its pixel n//2 at `wave_px` (L, 2), by summation."""
    n = image.shape[0]
    axis = np.arange(n) - n // 2
    across, down = (np.exp(-2j * np.pi / n * np.outer(wave_px[:, i], axis)) for i in (0, 1))
    return np.einsum("ly,yx,lx->l", down, image.astype(np.float64), across) / n


def central_slice(voxels: np.ndarray, rotation: np.ndarray, wave_px: np.ndarray) -> np.ndarray:
    """F[volume](R @ (kx, ky, 0)) by summation over voxels, on the scale of an orthonormal image transform: (L,)."""
    n = voxels.shape[0]
    axis = np.arange(n) - n // 2
    points = wave_px @ rotation[:, :2].T
    x, y, z = (np.exp(-2j * np.pi / n * np.outer(points[:, i], axis)) for i in range(3))
    return np.einsum("lx,lx->l", np.einsum("ly,lyx->lx", y, np.einsum("lz,zyx->lyx", z, voxels.astype(np.float64))), x) / n


def log_likelihood(image: np.ndarray, predicted: np.ndarray, noise: np.ndarray) -> float:
    """log p of spectra (L,) relative to an empty reference."""
    return float(np.sum((np.abs(image) ** 2 - np.abs(image - predicted) ** 2) / noise))


def insert(sums: np.ndarray, values: np.ndarray, points: np.ndarray) -> None:
    """Spread values (L,) at grid coordinates (L, 3) x, y, z over the eight neighbours in a full grid (z, y, x)."""
    for value, point in zip(values, points):
        low = np.floor(point).astype(int)
        for corner in np.ndindex(2, 2, 2):
            at = low + corner
            share = np.prod(1 - np.abs(point - at))
            sums[at[2], at[1], at[0]] += share * value
