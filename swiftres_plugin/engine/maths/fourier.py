"""Fourier transforms of images and maps. The centring convention (docs/conventions.md) lives here and nowhere else."""
from __future__ import annotations

import numpy as np
import torch

from swiftres_plugin.engine.data.search import Band
from swiftres_plugin.engine.maths.adding import add_at
from swiftres_plugin.engine.maths.cubes import Planes, cube_of, cube_spectrum, planes_of, spectrum_slabs
from swiftres_plugin.engine.maths.padded import Empty

RAMP_BYTES = 32  # working memory per coefficient of an image and shift, to move it by a phase ramp and project it

def image_band(box_px: int, pixel_size_a: float) -> Band:
    """The whole half plane of a (box_px, box_px) image below Nyquist, without the mean."""
    highest = (box_px - 1) // 2
    ky, kx = np.meshgrid(np.arange(-highest, highest + 1), np.arange(0, highest + 1), indexing="ij")
    kx, ky = kx.ravel(), ky.ravel()
    shell = np.round(np.hypot(kx, ky)).astype(np.int64)
    half = (shell <= highest) & ((kx > 0) | (ky > 0))
    kx, ky, shell = kx[half], ky[half], shell[half]
    order = np.lexsort((np.arctan2(ky, kx), shell))
    wave = torch.from_numpy(np.stack([kx, ky], axis=1)[order])
    return Band(box_px, pixel_size_a, wave, torch.from_numpy(shell[order]))


def images_to_spectra(images: torch.Tensor, band: Band) -> torch.Tensor:
    """Orthonormal centred transforms of images (B, n, n), sampled on the band: (B, L) complex64."""
    n = images.shape[-1]
    full = torch.fft.rfft2(torch.fft.ifftshift(images, dim=(-2, -1)), norm="ortho")
    kx, ky = band.wave_px[:, 0], band.wave_px[:, 1]
    return full[:, ky % n, kx]


def spectra_to_images(spectra: torch.Tensor, band: Band) -> torch.Tensor:
    """Images (B, n, n) whose coefficients on the band are `spectra` (B, L) and zero elsewhere."""
    n = band.box_px
    kx, ky = band.wave_px[:, 0], band.wave_px[:, 1]
    full = torch.zeros((len(spectra), n, n // 2 + 1), dtype=spectra.dtype, device=spectra.device)
    full[:, ky % n, kx] = spectra
    axis = kx == 0
    full[:, (-ky[axis]) % n, 0] = spectra[:, axis].conj()
    return torch.fft.fftshift(torch.fft.irfft2(full, s=(n, n), norm="ortho"), dim=(-2, -1))


def phase_ramp(wave_px: torch.Tensor, shift_px: torch.Tensor) -> torch.Tensor:
    """exp(2 pi i k . shift) for shifts (..., 2) in pixels of a box whose waves are in cycles per pixel: (..., L) complex64."""
    phase = 2 * np.pi * (shift_px @ wave_px.T.to(shift_px.dtype))
    return torch.polar(torch.ones_like(phase), phase)


def ramps_back(band: Band, shift_a: torch.Tensor) -> torch.Tensor:
    """Phase ramps (..., L) that move images by -shift, for shifts (..., 2) in angstroms; see `RAMP_BYTES`."""
    return phase_ramp(band.wave_px.to(shift_a.dtype) / band.box_a, -shift_a)


def shells_3d(box_px: int, device: torch.device | str = "cpu", planes: slice = slice(None)) -> torch.Tensor:
    """Rounded radius of every coefficient of `rfftn` of a cube: (n, n, n//2+1) int64, or some planes of that."""
    axis = torch.fft.fftfreq(box_px, 1 / box_px, device=device)
    last = torch.arange(box_px // 2 + 1, device=device, dtype=axis.dtype)
    square = axis[planes, None, None] ** 2 + axis[None, :, None] ** 2 + last[None, None, :] ** 2
    return square.sqrt().round().to(torch.int64)


def shell_sums(values: torch.Tensor, shells: torch.Tensor, count: int) -> torch.Tensor:
    """Sum of real `values` over each shell 0..count-1 (float64); shells past the end are left out."""
    sums = torch.zeros(count + 1, dtype=torch.float64, device=values.device)
    return add_to_shells(sums, values, shells)[:count]


def add_to_shells(sums: torch.Tensor, values: torch.Tensor, shells: torch.Tensor) -> torch.Tensor:
    """Real `values` added in place to the sums of their shells (S + 1,) float64, the last of which takes what lies past S."""
    return add_at(sums, 0, shells.reshape(-1).clamp(max=len(sums) - 1), values.reshape(-1).to(torch.float64))


def band_sums(values: torch.Tensor, band: Band) -> torch.Tensor:
    """Sum of real `values` (..., L) over each shell of their band: (..., S) with S = last shell + 1."""
    sums = torch.zeros((*values.shape[:-1], band.last_shell + 1), dtype=values.dtype, device=values.device)
    return add_at(sums, -1, band.shell.to(values.device), values)


def filter_shells(voxels: torch.Tensor, gain: torch.Tensor, empty: Empty | None = None) -> torch.Tensor:
    """A cube with its Fourier shells multiplied by `gain` (shells past its end by zero); empty: makes the arrays."""
    return filtered(planes_of(voxels), len(voxels), gain, empty)


def filtered(planes: Planes, box_px: int, gain: torch.Tensor, empty: Empty | None = None) -> torch.Tensor:
    """The same of a cube (n, n, n), n = `box_px`, that gives its planes."""
    spectrum = cube_spectrum(planes, box_px, empty)
    table = torch.cat([gain.to(spectrum.device, torch.float32), torch.zeros(1, device=spectrum.device)])
    for slab in spectrum_slabs(spectrum):
        spectrum[slab] *= table[shells_3d(box_px, spectrum.device, slab).clamp(max=len(gain))]
    return cube_of(spectrum, empty)


def low_pass_gain(box_px: int, pixel_size_a: float, resolution_a: float, edge_shells: float = 2.0) -> torch.Tensor:
    """Gain per shell (n//2+1,) that falls by a cosine over `edge_shells` around the resolution limit."""
    shell = torch.arange(box_px // 2 + 1, dtype=torch.float32)
    limit = box_px * pixel_size_a / resolution_a
    return (0.5 * (1 + torch.cos(np.pi * ((shell - limit) / edge_shells + 0.5).clamp(0, 1))))


def resample_cube(voxels: torch.Tensor, box_px: int) -> torch.Tensor:
    """The same field on a cube of `box_px` voxels (same physical size), by cropping or padding its transform."""
    n = voxels.shape[0]
    if box_px == n:
        return voxels
    spectrum = torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(voxels)))
    spectrum = crop_or_pad(spectrum, box_px)
    result = torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(spectrum)).real)
    return (result * (box_px / n) ** 3).to(voxels.dtype)


def crop_or_pad(cube: torch.Tensor, box_px: int) -> torch.Tensor:
    """Crop or zero-pad a cube so that voxel n//2 becomes voxel box_px//2."""
    n = cube.shape[0]
    lead = box_px // 2 - n // 2
    tail = box_px - n - lead
    return torch.nn.functional.pad(cube, (lead, tail) * 3)
