"""A refinement small enough for ten seconds, with a known answer: does this installation work, on this device?"""
from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.maps import HalfMaps, Map
from swiftres_plugin.engine.data.particles import ArraySource, Ctf, Optics, Particles, Poses
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.maths.ctf import contrast_transfer
from swiftres_plugin.engine.maths.fourier import image_band, images_to_spectra, spectra_to_images
from swiftres_plugin.engine.maths.geometry import random_rotations
from swiftres_plugin.engine.maths.symmetry import angular_errors, symmetry_operators
from swiftres_plugin.engine.refine import refine, start
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.stages.postprocess import compute_fsc
from swiftres_plugin.engine.stages.preprocess import load_spectra
from swiftres_plugin.settings import RefineSettings, from_flat

BOX_PX, PIXEL_A, BLOB_A = 32, 4.0, 6.0
RESOLUTION_A = 16.0


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What came out: median errors of the poses, resolution (FSC 0.5) of the map against the truth, and the time."""

    angle_deg: float
    shift_a: float
    resolution_a: float
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether poses and map are as good as they are on machines that work (4 degrees, 0.8 A, 15 A), with room."""
        return self.angle_deg < 8 and self.shift_a < 2 and self.resolution_a < 20


def run_self_test(compute: Compute, particles: int = 300, seed: int = 1) -> SelfTest:
    """Project a phantom with CTF and noise, refine it for one iteration from a low-passed map, compare with the truth."""
    began = time.perf_counter()
    generator = np.random.default_rng(seed)
    blobs_a = generator.uniform(-1, 1, (14, 3)) * [34, 26, 20]
    truth = phantom_map(blobs_a)
    source = phantom_particles(blobs_a, particles, generator)
    settings = from_flat({"initial_resolution": RESOLUTION_A, "diameter": 90.0, "max_shift": 8.0, "iterations": 1})
    found, halves = refined_once(source, truth, compute, settings)
    angles, shifts = angular_errors(found, _poses(source), symmetry_operators("C1"))
    fsc = compute_fsc(HalfMaps(halves.average, truth), None)
    return SelfTest(float(np.degrees(np.median(angles))), float(np.median(shifts)),
                    fsc.resolution_a(0.5, "unmasked"), time.perf_counter() - began)


def phantom_map(blobs_a: np.ndarray) -> Map:
    """Gaussians at (K, 3) angstroms as a map."""
    axis = (np.arange(BOX_PX) - BOX_PX // 2) * PIXEL_A
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    square = sum((grid[..., None] - blobs_a[:, i])**2 for i, grid in enumerate((x, y, z)))
    return Map(np.exp(-square / (2 * BLOB_A**2)).sum(axis=-1).astype(np.float32), PIXEL_A)


def phantom_particles(blobs_a: np.ndarray, count: int, generator: np.random.Generator) -> ArraySource:
    """Noisy projections of the Gaussians: written in real space from docs/conventions.md, not through the projector."""
    poses = Poses(random_rotations(count, generator), generator.normal(scale=3.0, size=(count, 2)))
    defocus = generator.uniform(10000, 25000, count)
    ctf = Ctf(defocus, defocus - 300, generator.uniform(0, np.pi, count), np.zeros(count))
    optics = Optics(300.0, 2.7, 0.1, PIXEL_A, BOX_PX)
    particles = Particles(
        particle_id=np.arange(count), stack_paths=("phantom",), stack_index=np.zeros(count, dtype=np.int64),
        slice_index=np.arange(count), optics=(optics,), optics_group=np.zeros(count, dtype=np.int64), ctf=ctf, poses=poses)
    images = with_ctf(projections(blobs_a, poses), ctf, optics)
    noise = generator.normal(scale=2 * images.std(), size=images.shape)
    return ArraySource(particles, (images + noise).astype(np.float32))


def projections(blobs_a: np.ndarray, poses: Poses) -> np.ndarray:
    """(N, n, n) sums of Gaussians at the blobs' places in the image, inv(R) @ blob - shift."""
    places = (blobs_a @ poses.image_to_volume)[..., :2] - poses.shift_a[:, None]
    axis = (np.arange(BOX_PX) - BOX_PX // 2) * PIXEL_A
    across, down = (np.exp(-(axis - places[..., i, None])**2 / (2 * BLOB_A**2)) for i in (0, 1))
    return np.einsum("nky,nkx->nyx", down, across)


def with_ctf(images: np.ndarray, ctf: Ctf, optics: Optics) -> np.ndarray:
    """The images (N, n, n) as the microscope shows them."""
    band = image_band(optics.box_px, optics.pixel_size_a)
    x, y = band.frequency()
    transfer = contrast_transfer(
        x, y, defocus_u_a=torch.from_numpy(ctf.defocus_u_a), defocus_v_a=torch.from_numpy(ctf.defocus_v_a),
        defocus_angle_rad=torch.from_numpy(ctf.defocus_angle_rad), phase_shift_rad=torch.from_numpy(ctf.phase_shift_rad),
        voltage_kv=optics.voltage_kv, spherical_aberration_mm=optics.spherical_aberration_mm,
        amplitude_contrast=optics.amplitude_contrast)
    spectra = images_to_spectra(torch.from_numpy(images).float(), band)
    return spectra_to_images(spectra * transfer, band).numpy()


def refined_once(
        source: ArraySource, reference: Map, compute: Compute, settings: RefineSettings) -> tuple[Poses, HalfMaps]:
    """Poses and half maps after one iteration that starts without poses."""
    blind = replace(source, particles=replace(source.particles, poses=None))
    with tempfile.TemporaryDirectory() as folder:
        spectra = load_spectra(blind, settings.preprocess, compute, SilentReporter(), Path(folder))
        engine = Engine(spectra, compute, symmetry_operators("C1"), settings, SilentReporter())
        state = next(iter(refine(engine, start(engine, [reference], None))))
    halves = state.classes[0].halves
    if state.assignment is None or halves is None:
        raise RuntimeError("an iteration ended without poses or maps")
    return Poses(state.assignment.image_to_volume, state.assignment.shift_a), halves


def _poses(source: ArraySource) -> Poses:
    if source.particles.poses is None:
        raise RuntimeError("the phantom's poses are lost")
    return source.particles.poses
