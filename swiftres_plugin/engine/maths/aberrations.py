"""Beam tilt, Zernike polynomials and anisotropic magnification of an optics group (docs/conventions.md).

Signs, order and scale are those of RELION 3.1 and later: obs_model, tilt_helper and Zernike in its sources.
"""
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from swiftres_plugin.engine.data.particles import Optics, Particles
from swiftres_plugin.engine.maths.ctf import ANGSTROM_PER_MM, wavelength_a


def odd_phase(optics: Optics, frequency_x: Tensor, frequency_y: Tensor) -> Tensor:
    """(L,) float64: the phase (rad) by which images are ahead of their model at L frequencies of the particle (1/A).

    Beam tilt t shifts phases by -2 pi Cs lambda^2 k^2 (k . t).
    """
    x, y = frequency_x.double(), frequency_y.double()
    wavelength, (tilt_x, tilt_y) = float(wavelength_a(optics.voltage_kv)), optics.beam_tilt_rad
    strength = -2 * math.pi * optics.spherical_aberration_mm * ANGSTROM_PER_MM * wavelength**2
    phase = strength * (x * x + y * y) * (tilt_x * x + tilt_y * y)
    return phase + _zernike_sum(optics.odd_zernike, odd_order, x, y)


def even_phase(optics: Optics, frequency_x: Tensor, frequency_y: Tensor) -> Tensor | None:
    """(L,) float64: what is taken from the phase (rad) of the contrast transfer; None where there is nothing."""
    if not any(optics.even_zernike):
        return None
    return _zernike_sum(optics.even_zernike, even_order, frequency_x.double(), frequency_y.double())


def odd_order(index: int) -> tuple[int, int]:
    """(m, n) of an odd coefficient by its place from 0: n = 1, 3, 3, 3, 3, 5, ..., and m = -n, -n + 2, ..., n of each n."""
    row = (math.isqrt(1 + 4 * index) - 1) // 2
    n = 2 * row + 1
    return 2 * (index - row * row - row) - n, n


def even_order(index: int) -> tuple[int, int]:
    """(m, n) of an even coefficient by its place from 0: n = 0, 2, 2, 2, 4, ..., and m = -n, -n + 2, ..., n of each n."""
    row = math.isqrt(index)
    return 2 * (index - row * row - row), 2 * row


def _zernike_sum(coefficients: tuple[float, ...], order: Callable[[int], tuple[int, int]], x: Tensor, y: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    for index, coefficient in enumerate(coefficients):
        if coefficient:
            total += coefficient * zernike(*order(index), x, y)
    return total


def zernike(m: int, n: int, x: Tensor, y: Tensor) -> Tensor:
    """Z(m, n) at points in 1/A, without any scaling of the radius: R cos(m phi), or R sin(|m| phi) for negative m."""
    radius, angle = torch.hypot(x, y), torch.atan2(y, x)
    turn = torch.cos(m * angle) if m >= 0 else torch.sin(-m * angle)
    return radial_polynomial(abs(m), n, radius) * turn


def radial_polynomial(m: int, n: int, radius: Tensor) -> Tensor:
    """R(m, n) = sum over k of (-1)^k (n-k)! / (k! ((n+m)/2-k)! ((n-m)/2-k)!) r^(n-2k)."""
    total = torch.zeros_like(radius)
    for k in range((n - m) // 2 + 1):
        below = math.factorial(k) * math.factorial((n + m) // 2 - k) * math.factorial((n - m) // 2 - k)
        total += (-1) ** k * math.factorial(n - k) // below * radius ** (n - 2 * k)
    return total


def magnification_matrix(optics: Optics) -> np.ndarray:
    """M (2, 2): a frequency k of the image is M k of the particle."""
    return np.array(optics.magnification).reshape(2, 2)


def shift_of_particle(particles: Particles, shift_a: np.ndarray) -> np.ndarray:
    """Shifts (N, 2) of images as the undistorted particle makes them: inv(M)^T t, since (M k) . t' = k . t."""
    if not any(optics.distorted for optics in particles.optics):
        return shift_a
    inverse = np.array([np.linalg.inv(magnification_matrix(optics)) for optics in particles.optics])
    return np.einsum("nji,nj->ni", inverse[particles.optics_group], shift_a)


def shift_of_image(particles: Particles, shift_a: np.ndarray) -> np.ndarray:
    """The inverse of `shift_of_particle`: M^T t'."""
    if not any(optics.distorted for optics in particles.optics):
        return shift_a
    matrices = np.array([magnification_matrix(optics) for optics in particles.optics])
    return np.einsum("nji,nj->ni", matrices[particles.optics_group], shift_a)
