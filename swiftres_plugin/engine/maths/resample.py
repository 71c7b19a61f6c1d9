"""Transforms of images at frequencies between those of their own grid."""
from __future__ import annotations

import math

import numpy as np
import torch

from swiftres_plugin.engine.maths.adding import add_parts

OVERSAMPLING = 2
WIDTH = 6  # grid points that one value is interpolated from, along each axis
# Beatty, Nishimura & Pauly, IEEE Trans. Med. Imaging 24 (2005) 799, equation 5: the shape of least aliasing.
SHAPE = math.pi * math.sqrt((WIDTH / OVERSAMPLING) ** 2 * (OVERSAMPLING - 0.5) ** 2 - 0.8)


def spectra_at(images: torch.Tensor, wave: torch.Tensor) -> torch.Tensor:
    """Orthonormal transforms of images (B, n, n) about pixel n//2 at `wave` (L, 2), real cycles per box: (B, L) complex64.

    Kaiser-Bessel interpolation in a twofold padded transform, true to some 1e-5 of the largest coefficient. Past the
    Nyquist frequency a transform repeats itself.
    """
    grid = _padded_transform(images)
    size = grid.shape[-1]
    first, weight_x, weight_y = _neighbours(wave * OVERSAMPLING)
    flat = grid.flatten(1)
    total = torch.zeros((len(images), len(wave)), dtype=grid.dtype, device=grid.device)
    for down in range(WIDTH):
        row = (first[:, 1] + down) % size * size
        for across in range(WIDTH):
            share = weight_y[:, down] * weight_x[:, across]
            total += flat[:, row + (first[:, 0] + across) % size] * share
    return total


def images_from(spectra: torch.Tensor, wave: torch.Tensor, box_px: int) -> torch.Tensor:
    """Images (B, n, n) whose orthonormal transform is the sum of `spectra` (B, L) at `wave` (L, 2) and their conjugates.

    The adjoint of `spectra_at` on real images, times two: with half planes of values times the area that each stands for
    it is the inverse transform.
    """
    size = OVERSAMPLING * box_px
    first, weight_x, weight_y = _neighbours(wave * OVERSAMPLING)
    grid = torch.zeros((len(spectra), size * size), dtype=spectra.dtype, device=spectra.device)

    def part(down: int, across: int) -> tuple[torch.Tensor, torch.Tensor]:
        index = (first[:, 1] + down) % size * size + (first[:, 0] + across) % size
        return index, torch.view_as_real(spectra * (weight_y[:, down] * weight_x[:, across]))

    parts = (part(down, across) for down in range(WIDTH) for across in range(WIDTH))
    bound = torch.view_as_real(spectra) * (weight_x.abs().amax() * weight_y.abs().amax())
    add_parts(torch.view_as_real(grid), 1, parts, bound, WIDTH ** 2 * len(wave))
    images = torch.fft.ifft2(grid.view(-1, size, size), norm="forward").real * (2 / box_px)
    lead = size // 2 - box_px // 2
    inner = torch.fft.fftshift(images, dim=(-2, -1))[:, lead:lead + box_px, lead:lead + box_px]
    fall_off = _fall_off(box_px, spectra.device)
    return inner / (fall_off[:, None] * fall_off[None, :]).to(inner)


def _fall_off(box_px: int, device: torch.device) -> torch.Tensor:
    """(n,) what interpolation does to an image along each axis."""
    return _kernel_transform((torch.arange(box_px, device=device) - box_px // 2) / (OVERSAMPLING * box_px))


def _padded_transform(images: torch.Tensor) -> torch.Tensor:
    """Transforms (B, 2n, 2n) of images whose fall-off by the interpolation is taken out beforehand."""
    n = images.shape[-1]
    fall_off = _fall_off(n, images.device)
    prepared = images / (fall_off[:, None] * fall_off[None, :]).to(images)
    lead = OVERSAMPLING * n // 2 - n // 2
    padded = torch.nn.functional.pad(prepared, (lead, OVERSAMPLING * n - n - lead) * 2)
    return torch.fft.fft2(torch.fft.ifftshift(padded, dim=(-2, -1))) / n


def _neighbours(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """First neighbour (L, 2) of each point on the integer grid, and the weights of `WIDTH` of them, x and y (L, WIDTH)."""
    first = torch.ceil(points.double() - WIDTH / 2)
    distance = first[..., None] + torch.arange(WIDTH, device=points.device) - points.double()[..., None]
    inside = (1 - (2 * distance / WIDTH) ** 2).clamp(min=0)
    weight = torch.special.i0(SHAPE * inside.sqrt()).to(torch.float32)
    return first.to(torch.int64), weight[:, 0], weight[:, 1]


def _kernel_transform(position: torch.Tensor) -> torch.Tensor:
    """Fourier transform of the Kaiser-Bessel kernel at `position`, in parts of the padded box; float64."""
    root = torch.sqrt(SHAPE**2 - (np.pi * WIDTH * position.double()) ** 2)
    return WIDTH * torch.sinh(root) / root
