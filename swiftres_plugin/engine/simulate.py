"""Images of a known particle: projections, the microscope's transfer, noise, and the truth to compare with.

The image model is that of docs/conventions.md with noise added after the contrast transfer. Slices are taken for twice the
box and the image is cropped afterwards, so that signal which defocus carries out of the box leaves it, as in real data.
Everything random is drawn from streams named by (seed, purpose, particle): batch size and order change nothing.
"""
from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import affine_transform, distance_transform_edt

from .. import layout
from ..errors import InputError
from .data.maps import Map
from .data.particles import Ctf, Optics, Particles, Poses
from .io.mrc import StackWriter, write_map
from .io.star import read_optics, write_particles
from .io.symmetry import open_symmetry
from .maths.aberrations import magnification_matrix, odd_phase
from .maths.fourier import crop_or_pad, filter_shells, image_band, low_pass_gain, phase_ramp, spectra_to_images
from .maths.geometry import random_rotations
from .maths.slices import extract_slices, fourier_volume
from .maths.transfer import particle_transfer
from .report import Reporter

BATCH = 32
# Of the box, on top of the projector's own padding: errors of interpolation stay far below those of a refinement.
EXTRA_PADDING = 1.5
# A pixel belongs to the projection's area where it is above this part of the projection's maximum.
AREA_LEVEL = 0.05
NOISE_SAMPLE = 320
SYMMETRY_RESOLUTION_PX, SYMMETRY_LIKENESS = 6.0, 0.9
PARTICLES_PER_MICROGRAPH = 64
LARGEST_ASTIGMATISM_A = 1000.0
STACK, TRUE_PARTICLES, TRUTH = "particles.mrcs", "particles_true.star", "truth.json"
TRUE_MAP, INITIAL_MAP, MASK = "true_map.mrc", "initial_map.mrc", "mask.mrc"
POSE_STREAM, OPTICS_STREAM, JUNK_STREAM, HALF_STREAM, NOISE_STREAM = 0, 1, 3, 5, 9


@dataclass(frozen=True)
class SimulationSettings:
    """How images are made. snr_db: variance of the signal on the projection's area over that of the noise, in decibels.
    optics_star: file whose optics groups stand in for voltage, aberration and amplitude contrast."""

    count: int = 1000
    snr_db: float = -10.0
    defocus_range_a: tuple[float, float] = (5000.0, 25000.0)
    astigmatism_a: float = 300.0
    shift_sigma_px: float = 3.0
    voltage_kv: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.1
    coloured_noise: bool = False
    junk_fraction: float = 0.0
    symmetry: str = "C1"
    initial_resolution_a: float = 50.0
    float16: bool = False
    seed: int = 1
    optics_star: str = ""


# ------------------------------------------------------------------------------------------ projections

class Projector:
    """Noise-free images of a map at given poses."""

    def __init__(self, density: Map):
        self.box_px, self.pixel_size_a = density.box_px, density.pixel_size_a
        self._band = image_band(2 * self.box_px, self.pixel_size_a)
        padded = 2 * math.ceil(EXTRA_PADDING * self.box_px / 2)
        voxels = crop_or_pad(torch.from_numpy(np.ascontiguousarray(density.voxels)), padded)
        # The band counts cycles per doubled box, the volume cycles per padded box.
        self._wave_px = self._band.wave_px.to(torch.float32) * (padded / self._band.box_px)
        self._volume = fourier_volume(voxels, math.ceil(float(self._wave_px.abs().max())))
        self._scale = padded / self._band.box_px
        self._mean = float(density.voxels.sum(dtype=np.float64)) / self._band.box_px ** 2

    def project(self, particles: Particles, with_ctf: bool) -> np.ndarray:
        """Images (B, n, n) float32 of the map at the poses of all `particles`, in their CTF or as plain projections.

        Raises `ValueError` when the particles have no poses.
        """
        images = np.empty((len(particles), self.box_px, self.box_px), np.float32)
        for group in np.unique(particles.optics_group):
            rows = np.flatnonzero(particles.optics_group == group)
            images[rows] = self._of_group(particles.take(rows), particles.optics[group], with_ctf)
        return images

    def _of_group(self, particles: Particles, optics: Optics, with_ctf: bool) -> np.ndarray:
        """Images (B, n, n) of particles that are all of one optics group."""
        if particles.poses is None:
            raise ValueError("particles without poses cannot be projected")
        matrix = torch.eye(3)
        matrix[:2, :2] = torch.from_numpy(magnification_matrix(optics))
        # On the slice, frequencies of the image are those of the particle: R M k.
        rotations = torch.from_numpy(particles.poses.image_to_volume).float()
        if optics.distorted:
            rotations = rotations @ matrix
        spectra = self._scale * extract_slices(self._volume, rotations, self._wave_px)
        shift_px = torch.from_numpy(particles.poses.shift_a / self.pixel_size_a).float()
        spectra *= phase_ramp(self._band.wave_px.float() / self._band.box_px, shift_px)
        mean = torch.full((len(particles), 1), self._mean)
        if with_ctf:
            frequency_x, frequency_y = self._band.frequency()
            if optics.distorted:
                frequency_x, frequency_y = matrix[:2, :2] @ torch.stack([frequency_x, frequency_y])
            spectra *= particle_transfer(particles, frequency_x, frequency_y)
            if optics.shifts_phases:
                phase = odd_phase(optics, frequency_x, frequency_y).float()
                spectra *= torch.polar(torch.ones_like(phase), phase)
            mean *= particle_transfer(particles, torch.zeros(1), torch.zeros(1))
        images = spectra_to_images(spectra, self._band) + mean[..., None]
        start = self.box_px - self.box_px // 2
        return images[:, start:start + self.box_px, start:start + self.box_px].contiguous().numpy()


def project_particles(density: Map, particles: Particles, stack: Path, with_ctf: bool, reporter: Reporter) -> Particles:
    """Write the noise-free images of `density` at the particles' poses to `stack`; the particles of that stack.

    Raises `InputError` when the particles have no poses, or another box or pixel size than the map.
    """
    if particles.poses is None:
        raise InputError("the particles have no poses", expected="rlnAngleRot, rlnAngleTilt and rlnAnglePsi")
    if len({(optics.box_px, optics.pixel_size_a) for optics in particles.optics}) > 1:
        raise InputError("the optics groups have mixed boxes or pixel sizes, and a stack has one",
                         found=", ".join(f"{o.box_px} px of {o.pixel_size_a:g} A" for o in particles.optics[:5]),
                         remedy="Project the particles of each group by themselves.")
    sizes = [(particles.box_px, round(particles.pixel_size_a, 3)), (density.box_px, round(density.pixel_size_a, 3))]
    if sizes[0] != sizes[1]:
        raise InputError("map and particles differ in box or pixel size", found="map {1[0]} px of {1[1]} A".format(*sizes),
                         expected="{0[0]} px of {0[1]} A".format(*sizes), remedy="Resample the map.")
    projector = Projector(density)
    reporter.stage("project", len(particles))
    with StackWriter(stack, len(particles), density.box_px, density.pixel_size_a) as writer:
        for rows in _batches(len(particles)):
            writer.write(projector.project(particles.take(rows), with_ctf))
            reporter.advance(len(rows))
    return replace(particles, stack_paths=(str(stack),), stack_index=np.zeros(len(particles), np.int64),
                   slice_index=np.arange(len(particles)))


def _batches(count: int) -> Iterator[np.ndarray]:
    for start in range(0, count, BATCH):
        yield np.arange(start, min(start + BATCH, count))


# ----------------------------------------------------------------------------------------------- simulate

def simulate(density: Map, settings: SimulationSettings, folder: Path, reporter: Reporter) -> None:
    """Make a data set with a known truth in `folder` from the map of a particle.

    particles.mrcs and particles.star (poses zero), particles_true.star (true poses; class 2 is junk), true_map.mrc in the
    scale of the images, initial_map.mrc (low-passed), mask.mrc and truth.json. The background has standard deviation 1.
    """
    truth, junk = draw_particles(density, settings, folder / STACK)
    sigma, area_px = noise_level(Projector(density), truth.take(np.flatnonzero(~junk)[:NOISE_SAMPLE]), settings.snr_db)
    density = replace(density, voxels=(density.voxels / sigma).astype(np.float32))
    _write_images(density, truth, junk, settings, reporter)
    write_particles(folder / TRUE_PARTICLES, truth)
    unknown = Poses(np.tile(np.eye(3), (len(truth), 1, 1)), np.zeros((len(truth), 2)))
    write_particles(folder / layout.PARTICLES, replace(truth, poses=unknown, half=None, scores={}))
    write_map(folder / TRUE_MAP, density)
    write_map(folder / INITIAL_MAP, low_passed(density, settings.initial_resolution_a))
    write_map(folder / MASK, soft_mask(density))
    facts = {"settings": asdict(settings), "box_px": density.box_px, "pixel_size_a": density.pixel_size_a,
             "noise_sigma_in_model_units": sigma, "mean_area_px": area_px, "junk": np.flatnonzero(junk).tolist()}
    (folder / TRUTH).write_text(json.dumps(facts, indent=1))


def check_settings(settings: SimulationSettings) -> None:
    """Raises `InputError` naming the first setting that makes no sense."""
    low, high = settings.defocus_range_a
    rules = (
        (settings.count >= 1, "count", settings.count, "at least 1"),
        (0 <= settings.junk_fraction < 1, "junk", settings.junk_fraction, "0 or more and less than 1"),
        (0 <= low <= high, "defocus range", f"{low:g} {high:g}", "two numbers, the smaller first"),
        (0 <= settings.amplitude_contrast <= 1, "amplitude contrast", settings.amplitude_contrast, "0 to 1"),
        (settings.voltage_kv > 0, "voltage", settings.voltage_kv, "more than 0 kV"),
        (settings.shift_sigma_px >= 0, "shift sigma", settings.shift_sigma_px, "0 or more"),
        (settings.astigmatism_a >= 0, "astigmatism", settings.astigmatism_a, "0 or more"),
        (settings.initial_resolution_a > 0, "resolution of initial", settings.initial_resolution_a, "more than 0 A"),
        (settings.seed >= 0, "seed", settings.seed, "0 or more"),
    )
    for fits, name, found, expected in rules:
        if not fits:
            raise InputError("cannot simulate with this", where=name, found=found, expected=expected)


def check_symmetry(density: Map, symmetry: str) -> None:
    """Raises `InputError` when the map, seen at low resolution, changes under a rotation of the point group."""
    operators = open_symmetry(symmetry)
    smooth = low_passed(density, SYMMETRY_RESOLUTION_PX * density.pixel_size_a).voxels
    centre = np.full(3, density.box_px // 2)
    for operator in operators[1:]:
        backwards = operator[::-1, ::-1].T  # (z, y, x) order
        turned = affine_transform(smooth, backwards, centre - backwards @ centre, order=1)
        likeness = float(np.corrcoef(turned.ravel(), smooth.ravel())[0, 1])
        if likeness < SYMMETRY_LIKENESS:
            raise InputError(f"the map does not have the symmetry {symmetry}", found=f"a correlation of {likeness:.2f}",
                             expected=f"at least {SYMMETRY_LIKENESS}", remedy="Turn it to RELION's axes, or take C1.")


def draw_particles(density: Map, settings: SimulationSettings, stack: Path) -> tuple[Particles, np.ndarray]:
    """The true particles, with `class_id` 1 and no pose for junk, and which are junk (N,) bool."""
    count = settings.count
    junk = np.zeros(count, bool)
    junk[_stream(settings, JUNK_STREAM).permutation(count)[:round(settings.junk_fraction * count)]] = True
    half = np.zeros(count, np.int64)
    half[_stream(settings, HALF_STREAM).permutation(count)[:count // 2]] = 1
    optics = optics_groups(density, settings)
    poses = _draw_poses(settings, density.pixel_size_a)
    poses.image_to_volume[junk], poses.shift_a[junk] = np.eye(3), 0.0
    micrograph = np.arange(count) // PARTICLES_PER_MICROGRAPH + 1
    zero = np.zeros(count, np.int64)
    particles = Particles(
        particle_id=np.arange(count), stack_paths=(str(stack),), stack_index=zero, slice_index=np.arange(count),
        optics=optics, optics_group=np.arange(count) % len(optics), ctf=_draw_ctf(settings), half=half, poses=poses,
        scores={"class_id": junk.astype(np.int64)},
        extra={"rlnMicrographName": np.array([f"mic_{number:04d}.mrc" for number in micrograph])})
    return particles, junk


def optics_groups(density: Map, settings: SimulationSettings) -> tuple[Optics, ...]:
    """The groups of the settings' file, as many as there are particles for; without a file one of the plain settings."""
    if settings.optics_star:
        return read_optics(settings.optics_star, density.pixel_size_a, density.box_px)[:settings.count]
    return (Optics(settings.voltage_kv, settings.spherical_aberration_mm, settings.amplitude_contrast,
                   density.pixel_size_a, density.box_px),)


def _stream(settings: SimulationSettings, *purpose: int) -> np.random.Generator:
    return np.random.default_rng([settings.seed, *purpose])


def _draw_poses(settings: SimulationSettings, pixel_size_a: float) -> Poses:
    """Uniform orientations; centres displaced by a Gaussian in each axis, not farther than three sigma."""
    stream = _stream(settings, POSE_STREAM)
    rotations = random_rotations(settings.count, stream)
    centre_px = stream.normal(size=(settings.count, 2)) * settings.shift_sigma_px
    distance = np.linalg.norm(centre_px, axis=1, keepdims=True)
    centre_px *= np.minimum(1.0, 3 * settings.shift_sigma_px / np.maximum(distance, 1e-9))
    return Poses(rotations, -centre_px * pixel_size_a)


def _draw_ctf(settings: SimulationSettings) -> Ctf:
    stream, count = _stream(settings, OPTICS_STREAM), settings.count
    mean = stream.uniform(*settings.defocus_range_a, count)
    difference = np.minimum(np.abs(stream.normal(0, settings.astigmatism_a, count)), LARGEST_ASTIGMATISM_A)
    angle = stream.uniform(0, np.pi, count)
    return Ctf(mean + difference / 2, mean - difference / 2, angle, np.zeros(count))


def noise_level(projector: Projector, particles: Particles, snr_db: float) -> tuple[float, float]:
    """Standard deviation of the noise that gives `snr_db`, and the mean area of a projection in pixels.

    The signal is the variance of the CTF-filtered image inside the area of the CTF-free projection (thesis, 5.1).
    """
    variances, areas = [], []
    for rows in _batches(len(particles)):
        batch = particles.take(rows)
        plain, filtered = projector.project(batch, with_ctf=False), projector.project(batch, with_ctf=True)
        for projection, image in zip(plain, filtered):
            inside = projection > AREA_LEVEL * projection.max()
            variances.append(float(image[inside].var()))
            areas.append(int(inside.sum()))
    return math.sqrt(np.mean(variances) / 10 ** (snr_db / 10)), float(np.mean(areas))


def _write_images(density: Map, truth: Particles, junk: np.ndarray, settings: SimulationSettings,
                  reporter: Reporter) -> None:
    projector = Projector(density)
    reporter.stage("simulate", len(truth))
    dtype = "float16" if settings.float16 else "float32"
    with StackWriter(truth.stack_paths[0], len(truth), density.box_px, density.pixel_size_a, dtype) as writer:
        for rows in _batches(len(truth)):
            signal = projector.project(truth.take(rows), with_ctf=True) * ~junk[rows, None, None]
            writer.write(signal + np.stack([noise_image(settings, int(row), density.box_px) for row in rows]))
            reporter.advance(len(rows))


def noise_image(settings: SimulationSettings, particle: int, box_px: int) -> np.ndarray:
    """(n, n) float32 Gaussian noise of variance 1 for one particle: white, or half white and half with power ~ 1/f."""
    stream = _stream(settings, NOISE_STREAM, particle)
    if not settings.coloured_noise:
        return stream.standard_normal((box_px, box_px), np.float32)
    size = 2 * box_px
    white = stream.standard_normal((size, size), np.float32)
    # Cut from a larger field: a periodic box would have no frequencies between its own.
    field = np.fft.irfft2(np.fft.rfft2(white) * np.sqrt(_coloured_power(size)), s=white.shape)
    return field[:box_px, :box_px].astype(np.float32)


def _coloured_power(size: int) -> np.ndarray:
    """(size, size//2+1) 1/2 + c/f, c such that the mean over all frequencies is 1; level below one cycle per box."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None, :])
    inverse = 1 / np.maximum(frequency, 1 / size)
    return (0.5 + 0.5 * inverse / inverse.mean())[:, :size // 2 + 1]


# ------------------------------------------------------------------------------------------------- maps

def low_passed(density: Map, resolution_a: float) -> Map:
    """The map without detail finer than `resolution_a`."""
    gain = low_pass_gain(density.box_px, density.pixel_size_a, resolution_a)
    return replace(density, voxels=filter_shells(torch.from_numpy(density.voxels), gain).numpy())


def soft_mask(density: Map, resolution_a: float = 20.0, level: float = 0.08, extend_a: float = 6.0,
              edge_a: float = 12.0) -> Map:
    """1 where the low-passed map exceeds `level` of its maximum, extended by `extend_a`, then a cosine edge down to 0."""
    smooth = low_passed(density, resolution_a).voxels
    distance_a = distance_transform_edt(smooth <= level * smooth.max()) * density.pixel_size_a
    fall = np.clip((distance_a - extend_a) / edge_a, 0.0, 1.0)
    return replace(density, voxels=(0.5 + 0.5 * np.cos(np.pi * fall)).astype(np.float32))
