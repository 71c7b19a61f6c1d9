"""Images on rings of Fourier space, where a rotation in the plane is a shift along the rings.

Ring r = 1..R, in cycles per box, holds P/2 samples over half a turn; the other half is their conjugate, since images are
real. The Fourier series along a ring, its harmonics m = 0..P/2, turns the comparison of two images at all P rotations into
one product; harmonics of negative order are (-1)^m times the conjugate of those kept.
"""
from __future__ import annotations

import math

import torch

from swiftres_plugin.engine.data.search import Band


def polar_band(box_px: int, pixel_size_a: float, rings: int) -> Band:
    """The rings 1..`rings` of an image, ordered by ring and then by angle, about as dense along a ring as across."""
    return rings_at(box_px, pixel_size_a, torch.arange(1, rings + 1, dtype=torch.float64), angle_count(rings))


def rings_at(box_px: int, pixel_size_a: float, radius: torch.Tensor, angles: int) -> Band:
    """Rings of these radii (R,), float64, each of `angles` (even) to a whole turn; the shells of the band count them."""
    angle = torch.arange(angles // 2, dtype=torch.float64) * (2 * math.pi / angles)
    direction = torch.stack([angle.cos(), angle.sin()], dim=1)
    wave = (radius[:, None, None] * direction).flatten(0, 1).float()
    return Band(box_px, pixel_size_a, wave, torch.arange(1, len(radius) + 1).repeat_interleave(len(angle)))


def angle_count(rings: int) -> int:
    """P: samples of a whole turn, one for each pixel along the finest ring; a number that transforms fast."""
    least = 2 * math.pi * rings
    sizes = (4 * 2 ** a * 3 ** b * 5 ** c for a in range(12) for b in range(4) for c in range(3))
    return min(size for size in sizes if size >= least)


def ring_angles(band: Band) -> int:
    """P of a band of rings."""
    return 2 * len(band) // band.last_shell


def cell_area(band: Band) -> torch.Tensor:
    """(L,) area of Fourier space, in coefficients of the image, that each sample of a band of rings stands for."""
    return band.shell.float() * (2 * math.pi / ring_angles(band))


def harmonics(rings: torch.Tensor, band: Band) -> torch.Tensor:
    """Harmonics (..., R, P/2 + 1) complex of samples (..., L), real or complex."""
    half = rings.unflatten(-1, (band.last_shell, -1))
    whole = torch.cat([half, half.conj().resolve_conj()], dim=-1)
    if not whole.is_complex():
        return torch.fft.rfft(whole)
    return torch.fft.fft(whole)[..., :whole.shape[-1] // 2 + 1]


def rings_of(series: torch.Tensor) -> torch.Tensor:
    """Samples (..., L) complex of harmonics (..., R, P/2 + 1): the inverse of `harmonics` of images."""
    order = torch.arange(1, series.shape[-1] - 1, device=series.device)
    sign = 1.0 - 2.0 * (order % 2)
    negative = (series[..., 1:-1].conj() * sign).flip(-1)
    whole = torch.fft.ifft(torch.cat([series, negative], dim=-1))
    return whole[..., :whole.shape[-1] // 2].flatten(-2)


def real_rings_of(series: torch.Tensor) -> torch.Tensor:
    """Samples (..., L) of harmonics (..., R, P/2 + 1) of real numbers, alike at opposite points."""
    whole = torch.fft.irfft(series, n=2 * (series.shape[-1] - 1))
    return whole[..., :whole.shape[-1] // 2].flatten(-2)


def turned(series: torch.Tensor, psi_rad: torch.Tensor) -> torch.Tensor:
    """Harmonics (..., R, M) of A(k) become those of A(Rz(psi) k); psi_rad (...,)."""
    order = torch.arange(series.shape[-1], device=series.device, dtype=psi_rad.dtype)
    phase = psi_rad[..., None, None] * order
    return series * torch.polar(torch.ones_like(phase), phase)
