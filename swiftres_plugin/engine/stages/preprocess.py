"""From images to resident spectra: normalise on the background, mask softly, transform, keep in half precision."""
from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from swiftres_plugin.engine.compute import Compute, free_host_bytes
from swiftres_plugin.engine.data.particles import Optics, ParticleSource
from swiftres_plugin.engine.data.search import Band
from swiftres_plugin.engine.data.spectra import ParticleBatch, Spectra
from swiftres_plugin.engine.maths.ctf import contrast_transfer, wavelength_a
from swiftres_plugin.engine.maths.fourier import image_band, images_to_spectra
from swiftres_plugin.engine.report import Reporter
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import PreprocessSettings

EDGE_PX = 5.0  # width of the cosine edge of the circular mask
IMAGE_BYTES = 24  # working memory per pixel


def load_spectra(source: ParticleSource, settings: PreprocessSettings, compute: Compute, reporter: Reporter,
                 cache: Path) -> Spectra:
    """Read every particle once; keep its transform in memory, or in the file `cache` when memory is short."""
    particles = source.particles
    band = image_band(particles.box_px, particles.pixel_size_a)
    store = _storage((len(particles), len(band), 2), cache, compute)
    window = circular_window(particles.box_px, _mask_radius_px(particles.optics, particles.ctf.defocus_u_a, settings))
    reporter.stage("reading particles", len(particles))

    def loading(place: Compute) -> Callable[[np.ndarray], None]:
        window_here, band_here = window.to(place.device), band.to(place.device)

        def load(rows: np.ndarray) -> None:
            images = torch.from_numpy(source.read(rows)).to(place.device)
            spectra = images_to_spectra(prepared(images, window_here, settings.invert_contrast), band_here)
            store[rows[0]:rows[-1] + 1] = checked(torch.view_as_real(spectra).to(torch.float16), rows)

        return load

    parts = compute.batches(np.arange(len(particles)), particles.box_px ** 2 * IMAGE_BYTES)
    compute.spread(loading, parts, done=lambda rows: reporter.advance(len(rows)))
    return Spectra(store, band, particles)


def checked(values: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    """The half-precision values of the images `rows`. Raises `InputError` where a number was too large for them."""
    if not bool(values.isfinite().all()):
        raise InputError("a particle image is many thousand times stronger in its middle than at its border",
                         where=f"images {rows[0] + 1} to {rows[-1] + 1}",
                         remedy="Use particles that are not masked, and whose outlying pixels are removed.")
    return values


def _storage(shape: tuple[int, ...], cache: Path, compute: Compute) -> torch.Tensor:
    """An empty half-precision array in memory, or memory-mapped in `cache` when it would take most of what is free."""
    size = int(np.prod(shape)) * 2
    if size < 0.5 * min(compute.host_bytes, free_host_bytes()):
        return torch.empty(shape, dtype=torch.float16)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with cache.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a disk that fills up later would end the program without a word
    except OSError as error:
        raise InputError("the particles fit neither in memory nor in the scratch folder", where=cache.parent,
                         found=error.strerror, expected=f"room for {size / 1e9:.1f} GB",
                         remedy="Name another folder with --scratch, or allow more memory with --memory.") from error
    return torch.from_numpy(np.memmap(cache, dtype=np.float16, mode="r+", shape=shape))


def prepared(images: torch.Tensor, window: torch.Tensor, invert: bool) -> torch.Tensor:
    """Images (B, n, n) with background mean 0 and deviation 1, inverted if asked, and the soft window applied."""
    outside = window < 0.5
    if int(outside.sum()) < 16:
        outside = torch.ones_like(outside)
    background = images[:, outside]
    mean = background.mean(1)
    deviation = background.std(1)
    if not bool((deviation > 0).all()):
        raise InputError("a particle image is constant outside the particle, so it cannot be normalised",
                         remedy="Remove empty images from the particle set.")
    sign = -1.0 if invert else 1.0
    return (images - mean[:, None, None]) * (sign / deviation)[:, None, None] * window


def circular_window(box_px: int, radius_px: float) -> torch.Tensor:
    """(n, n): one inside the radius, zero outside, a cosine edge of EDGE_PX within it."""
    axis = torch.arange(box_px, dtype=torch.float32) - box_px // 2
    distance = (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt()
    return 0.5 + 0.5 * torch.cos(np.pi * ((distance - radius_px) / EDGE_PX + 1).clamp(0, 1))


def _mask_radius_px(optics: tuple[Optics, ...], defocus_a: np.ndarray, settings: PreprocessSettings) -> float:
    """Half the box, or the particle's radius plus the spread by defocus, whichever is smaller.

    The spread of a frequency k is lambda * defocus * k; half of Nyquist is allowed for.
    """
    box_px, pixel_a = optics[0].box_px, optics[0].pixel_size_a
    largest = box_px / 2 - 1
    if not settings.diameter:
        return largest
    spread_a = float(wavelength_a(optics[0].voltage_kv)) * float(np.median(defocus_a)) * 0.25 / pixel_a
    return min(largest, (settings.diameter / 2 + spread_a) / pixel_a + EDGE_PX)


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
    """CTF of the particles at `rows` on the band: (B, L) float32."""
    optics, ctf = spectra.particles.optics, spectra.particles.ctf.take(rows)
    group = spectra.particles.optics_group[rows]

    def of_group(name: str) -> torch.Tensor:
        return torch.as_tensor(np.array([getattr(o, name) for o in optics])[group], device=device)

    def of_particle(values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, device=device)

    fx, fy = (f.to(device) for f in band.frequency())
    return contrast_transfer(
        fx, fy, defocus_u_a=of_particle(ctf.defocus_u_a), defocus_v_a=of_particle(ctf.defocus_v_a),
        defocus_angle_rad=of_particle(ctf.defocus_angle_rad), phase_shift_rad=of_particle(ctf.phase_shift_rad),
        voltage_kv=of_group("voltage_kv"), spherical_aberration_mm=of_group("spherical_aberration_mm"),
        amplitude_contrast=of_group("amplitude_contrast"), phase_flipped=of_group("phase_flipped"))
