"""From images to resident spectra: normalise on the background, mask softly, transform, keep in half precision.

Odd aberrations, anisotropic magnification and samplings of their own are taken out of the images here, once: all spectra
are those of the undistorted particle on one band.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from swiftres_plugin.engine.compute import Compute, free_host_bytes
from swiftres_plugin.engine.data.particles import NO_DISTORTION, Optics, Particles, ParticleSource
from swiftres_plugin.engine.data.search import Band
from swiftres_plugin.engine.data.spectra import ParticleBatch, Spectra
from swiftres_plugin.engine.maths.aberrations import magnification_matrix, odd_phase
from swiftres_plugin.engine.maths.ctf import wavelength_a
from swiftres_plugin.engine.maths.fourier import image_band, images_to_spectra
from swiftres_plugin.engine.maths.resample import spectra_at
from swiftres_plugin.engine.maths.transfer import particle_transfer
from swiftres_plugin.engine.report import Reporter
from swiftres_plugin.engine.scratch import filed
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import PreprocessSettings

EDGE_PX = 5.0  # width of the cosine edge of the circular mask
RESIDENT_SHARE = 0.4  # of a GPU's memory that the transforms of a run may take for themselves
IMAGE_BYTES = 24  # working memory per pixel
OWN_GRID_BYTES = 120  # the same where images are transformed at frequencies between those of their grid
PIXEL_TOLERANCE = 1e-4  # relative difference of pixel sizes that is a rounding


@dataclass(frozen=True, eq=False, slots=True)
class GroupTransform:
    """How the images of one optics group become spectra on the common band.

    window: (n, n) of the group's own box; wave_own: (L, 2) where the band's coefficients lie in the transform of an image, in
    cycles per its box, or None where they lie on its grid; factor: (L,) complex or None, what they are multiplied by;
    noise_limit: cycles per pixel up to which all groups hold noise, or None where their pixels are alike.
    """

    window: torch.Tensor
    wave_own: torch.Tensor | None = None
    factor: torch.Tensor | None = None
    noise_limit: float | None = None

    def to(self, device: torch.device) -> GroupTransform:
        wave, factor = (None if values is None else values.to(device) for values in (self.wave_own, self.factor))
        return GroupTransform(self.window.to(device), wave, factor, self.noise_limit)

    def spectra(self, images: torch.Tensor, band: Band, invert: bool) -> torch.Tensor:
        """(B, L) complex64 of images (B, n, n) as they were recorded."""
        clean = prepared(images, self.window, invert, self.noise_limit)
        values = images_to_spectra(clean, band) if self.wave_own is None else spectra_at(clean, self.wave_own)
        return values if self.factor is None else values * self.factor


def load_spectra(source: ParticleSource, settings: PreprocessSettings, compute: Compute, reporter: Reporter,
                 scratch: Path, defocus_a: float | None = None, resident: bool = False) -> Spectra:
    """Read every particle once; keep its transform in memory, or in a file in the folder `scratch` when memory is short.

    defocus_a: the median of all particles of the run, where `source` holds a part of them; resident: keep the transforms on
    the device that works on them, where they take less than `RESIDENT_SHARE` of its memory.
    """
    particles = source.particles
    defocus_a = typical_defocus_a(particles) if defocus_a is None else defocus_a
    band = image_band(particles.box_px, particles.pixel_size_a)
    store = _storage((len(particles), len(band), 2), scratch, compute, resident)
    transforms = group_transforms(particles, band, settings, defocus_a)
    reporter.stage("reading particles", len(particles))

    def loading(place: Compute) -> Callable[[np.ndarray], None]:
        band_here, here = band.to(place.device), on_device(transforms, place.device)

        def load(rows: np.ndarray) -> None:
            for members, transform in alike(rows, particles.optics_group, here):
                images = torch.from_numpy(source.read(members)).to(place.device)
                spectra = transform.spectra(images, band_here, settings.invert_contrast)
                values = checked(torch.view_as_real(spectra).to(torch.float16), members)
                store[torch.from_numpy(members)] = values.to(store.device)

        return load

    pixels = max(optics.box_px for optics in particles.optics) ** 2
    size = pixels * (OWN_GRID_BYTES if own_grids(transforms) else IMAGE_BYTES)
    parts = compute.batches(np.arange(len(particles)), size)
    compute.spread(loading, parts, done=lambda rows: reporter.advance(len(rows)))
    return Spectra(store, band, particles)


def checked(values: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    """The half-precision values of the images `rows`. Raises `InputError` where a number was too large for them."""
    if not bool(values.isfinite().all()):
        raise InputError("a particle image is many thousand times stronger in its middle than at its border",
                         where=f"images {rows[0] + 1} to {rows[-1] + 1}",
                         remedy="Use particles that are not masked, and whose outlying pixels are removed.")
    return values


def alike(rows: np.ndarray, group: np.ndarray,
          transforms: list[GroupTransform]) -> list[tuple[np.ndarray, GroupTransform]]:
    """`rows` parted by how their groups are treated."""
    parts = []
    for transform in dict.fromkeys(transforms[g] for g in np.unique(group[rows])):
        numbers = [g for g, one in enumerate(transforms) if one is transform]
        parts.append((rows[np.isin(group[rows], numbers)], transform))
    return parts


def on_device(transforms: list[GroupTransform], device: torch.device) -> list[GroupTransform]:
    """The same on a device; groups that shared one share one there."""
    moved = {transform: transform.to(device) for transform in dict.fromkeys(transforms)}
    return [moved[transform] for transform in transforms]


def own_grids(transforms: list[GroupTransform]) -> bool:
    return any(transform.wave_own is not None for transform in transforms)


def typical_defocus_a(particles: Particles) -> float:
    return float(np.median(particles.ctf.defocus_u_a))


def group_transforms(particles: Particles, band: Band, settings: PreprocessSettings,
                     defocus_a: float) -> list[GroupTransform]:
    """One for each optics group; groups whose images need nothing taken out of them share theirs."""
    common = particles.optics[0]
    mixed = not all(same_pixel(optics, common) for optics in particles.optics)
    coarsest_a = max(optics.pixel_size_a for optics in particles.optics)

    def transform(optics: Optics) -> GroupTransform:
        own = has_own_grid(optics, common)
        factor = torch.polar(*_gain_and_phase(optics, common, band)) if own or optics.shifts_phases else None
        limit = 0.5 * optics.pixel_size_a / coarsest_a if mixed else None
        window = _window(optics, common, defocus_a, settings)
        return GroupTransform(window, wave_in(optics, band) if own else None, factor, limit)

    plain = transform(replace(common, beam_tilt_rad=(0.0, 0.0), odd_zernike=(), magnification=NO_DISTORTION))
    return [transform(optics) if has_own_grid(optics, common) or optics.shifts_phases else plain
            for optics in particles.optics]


def has_own_grid(optics: Optics, common: Optics) -> bool:
    """Whether the coefficients of a group lie elsewhere than on the band of the `common` group."""
    return optics.distorted or optics.box_px != common.box_px or not same_pixel(optics, common)


def same_pixel(optics: Optics, common: Optics) -> bool:
    return abs(optics.pixel_size_a - common.pixel_size_a) <= PIXEL_TOLERANCE * common.pixel_size_a


def wave_in(optics: Optics, band: Band) -> torch.Tensor:
    """(L, 2) float64: inv(M) k of the band's frequencies k, in cycles per box of the group."""
    inverse = torch.from_numpy(np.linalg.inv(magnification_matrix(optics))).to(band.wave_px.device)
    return band.wave_px.double() @ inverse.T * (optics.box_a / band.box_a)


def _gain_and_phase(optics: Optics, common: Optics, band: Band) -> tuple[torch.Tensor, torch.Tensor]:
    """(L,) each: what makes up for another size of box in an orthonormal transform; the odd aberrations, taken back."""
    phase = -odd_phase(optics, *band.frequency()).float()
    return torch.full_like(phase, optics.box_a / common.box_a), phase


def _storage(shape: tuple[int, ...], scratch: Path, compute: Compute, resident: bool) -> torch.Tensor:
    """An empty half-precision array in memory, or memory-mapped on disk when it would take most of what is free."""
    size = int(np.prod(shape)) * 2
    if resident and compute.device.type != "cpu" and size < RESIDENT_SHARE * compute.memory_bytes:
        return torch.empty(shape, dtype=torch.float16, device=compute.device)
    if size < 0.5 * min(compute.host_bytes, free_host_bytes()):
        return torch.empty(shape, dtype=torch.float16)
    return filed(shape, torch.float16, scratch)


def prepared(images: torch.Tensor, window: torch.Tensor, invert: bool, noise_limit: float | None = None) -> torch.Tensor:
    """Images (B, n, n) with background mean 0 and deviation 1, inverted if asked, and the soft window applied.

    With a `noise_limit` (cycles per pixel) the deviation is that of white noise with the power that the background has
    up to there: images of one exposure in two samplings then keep one scale, whatever colour their noise is.
    """
    outside = window < 0.5
    if int(outside.sum()) < 16:
        outside = torch.ones_like(outside)
    background = images[:, outside]
    mean = background.mean(1)
    deviation = background.std(1)
    if noise_limit is not None:
        deviation = _up_to(images, noise_limit)[:, outside].std(1) / (math.pi ** 0.5 * noise_limit)
    if not bool((deviation > 0).all()):
        raise InputError("a particle image is constant outside the particle, so it cannot be normalised",
                         remedy="Remove empty images from the particle set.")
    sign = -1.0 if invert else 1.0
    return (images - mean[:, None, None]) * (sign / deviation)[:, None, None] * window


def _up_to(images: torch.Tensor, limit: float) -> torch.Tensor:
    """Images (B, n, n) without frequencies past `limit` cycles per pixel."""
    n = images.shape[-1]
    frequency = torch.hypot(torch.fft.fftfreq(n)[:, None], torch.fft.rfftfreq(n)[None, :]).to(images.device)
    return torch.fft.irfft2(torch.fft.rfft2(images) * (frequency <= limit), s=(n, n))


def circular_window(box_px: int, radius_px: float) -> torch.Tensor:
    """(n, n): one inside the radius, zero outside, a cosine edge of EDGE_PX within it."""
    axis = torch.arange(box_px, dtype=torch.float32) - box_px // 2
    distance = (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt()
    return 0.5 + 0.5 * torch.cos(np.pi * ((distance - radius_px) / EDGE_PX + 1).clamp(0, 1))


def _window(optics: Optics, common: Optics, defocus_a: float, settings: PreprocessSettings) -> torch.Tensor:
    """The circular window for a group's images."""
    return circular_window(optics.box_px, _window_radius_px(optics, common, defocus_a, settings))


def _window_radius_px(optics: Optics, common: Optics, defocus_a: float, settings: PreprocessSettings) -> float:
    """How far the window of a group reaches: no farther than the box of the `common` group."""
    largest = optics.box_px / 2 - 1
    if has_own_grid(optics, common):
        largest = min(largest, common.box_a / optics.pixel_size_a / 2 - 1)
    return _mask_radius_px(optics, largest, defocus_a, settings)


def _mask_radius_px(optics: Optics, largest: float, defocus_a: float, settings: PreprocessSettings) -> float:
    """The `largest` radius, or the particle's radius plus the spread by defocus, whichever is smaller.

    The spread of a frequency k is lambda * defocus * k; half of Nyquist is allowed for.
    """
    if not settings.diameter:
        return largest
    pixel_a = optics.pixel_size_a
    spread_a = float(wavelength_a(optics.voltage_kv)) * defocus_a * 0.25 / pixel_a
    return min(largest, (settings.diameter / 2 + spread_a) / pixel_a + EDGE_PX)


def window_power(particles: Particles, settings: PreprocessSettings) -> np.ndarray:
    """(groups,) part of the power of noise that each group's window leaves.

    Noise power is that of windowed images, where neighbouring coefficients go together: as many say only as much as this part
    of independent ones does. Likelihoods of what lies inside the window are too sharp by its inverse.
    """
    defocus_a, common = typical_defocus_a(particles), particles.optics[0]
    return np.array([_power_left(optics.box_px, _window_radius_px(optics, common, defocus_a, settings))
                     for optics in particles.optics])


@cache
def _power_left(box_px: int, radius_px: float) -> float:
    return float((circular_window(box_px, radius_px) ** 2).mean())


def make_batch(spectra: Spectra, rows: np.ndarray, band: Band, device: torch.device) -> ParticleBatch:
    """The particles at `rows`, cut to `band`, with their CTF, on `device`."""
    length = len(band)
    index = slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] + 1 == len(rows) else torch.from_numpy(rows)
    values = spectra.values[index, :length].to(device).to(torch.float32)  # half as much to carry as the other way round
    particles = spectra.particles
    group = torch.from_numpy(particles.optics_group[rows]).to(device)
    return ParticleBatch(rows, torch.view_as_complex(values.contiguous()), particle_ctf(spectra, rows, band, device),
                         group, band.to(device))


def particle_ctf(spectra: Spectra, rows: np.ndarray, band: Band, device: torch.device) -> torch.Tensor:
    """CTF of the particles at `rows` on the band: (B, L) float32; zero where their images hold nothing."""
    particles = spectra.particles.take(rows)
    transfer = particle_transfer(particles, *(f.to(device) for f in band.frequency()))
    common = particles.optics[0]
    if not any(has_own_grid(optics, common) for optics in particles.optics):
        return transfer
    held = torch.stack([held_by(optics, band) for optics in particles.optics]).to(device)
    return transfer * held[torch.from_numpy(particles.optics_group).to(device)]


def held_by(optics: Optics, band: Band) -> torch.Tensor:
    """(L,) which coefficients of the band are below the Nyquist frequency of a group's images."""
    return wave_in(optics, band).norm(dim=1) < (optics.box_px - 1) // 2 + 0.5
