"""From particles with poses to half maps, their FSC and the map: the last steps of a refinement, by themselves."""
from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from swiftres_plugin import layout
from swiftres_plugin.engine.align import image_noise
from swiftres_plugin.engine.checks import check_mask, check_optics, check_output_folder
from swiftres_plugin.engine.data.maps import Fsc, HalfMaps, Map
from swiftres_plugin.engine.data.particles import Particles
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.insertion import reconstruct_half
from swiftres_plugin.engine.io.mrc import MrcSource, check_stacks, read_map, write_map
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.io.symmetry import open_symmetry
from swiftres_plugin.engine.io.tables import write_fsc
from swiftres_plugin.engine.opening import open_engine
from swiftres_plugin.engine.refine import draw_halves, input_poses
from swiftres_plugin.engine.report import Reporter
from swiftres_plugin.engine.stages.postprocess import compute_fsc, signal_to_noise, solvent_mask, sphere_mask
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import ReconstructSettings, RefineSettings

LEAST_PARTICLES = 4
LEAST_SHARE = 0.01  # a particle that counts less is left out


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Half maps as they are, the map of all particles weighted by its signal-to-noise ratio, mask and FSC."""

    halves: HalfMaps
    combined: Map
    mask: Map
    fsc: Fsc


def reconstruct_files(particles: str, mask: str, settings: RefineSettings, output: Path, reporter: Reporter) -> Reconstruction:
    """Reconstruct the particles of a STAR file at their poses and write maps and FSC to the folder `output`.

    Raises `InputError` before any work where a file cannot be used or the folder holds results already.
    """
    check_output_folder(output)
    if (output / layout.map_name()).exists():
        raise InputError("the output folder already holds a map", where=output / layout.map_name(),
                         remedy="Name another folder.")
    found = open_particles(particles)
    operators = open_symmetry(settings.schedule.symmetry)
    window = read_map(mask) if mask else None
    if window is not None:
        check_mask(window, found.box_px, found.pixel_size_a, mask)
    once = replace(settings, reconstruct=ReconstructSettings(pose_samples=1))  # a STAR file tells no uncertainty
    engine = open_engine(MrcSource(found), operators, once, reporter, output, None if window is None else window.voxels)
    result = reconstruct(engine)
    write_result(result, output)
    return result


def open_particles(path: str) -> Particles:
    """The particles of a STAR file, checked: with poses, and with stacks that hold their images."""
    particles = read_particles(path)
    check_optics(particles.optics, path)
    if particles.poses is None:
        raise InputError("a reconstruction needs poses", where=path, found="no angle columns",
                         expected="rlnAngleRot, rlnAngleTilt and rlnAnglePsi",
                         remedy="Align the particles with 'swiftres refine'.")
    if len(particles) < LEAST_PARTICLES:
        raise InputError("too few particles", where=path, found=len(particles), expected=f"at least {LEAST_PARTICLES}")
    check_stacks(particles)
    return particles


def reconstruct(engine: Engine, share: np.ndarray | None = None, name: str = "") -> Reconstruction:
    """Each half alone, then their FSC and the map of both; share: (N,) how much each particle counts, one if left out."""
    particles = engine.spectra.particles
    pixel = particles.pixel_size_a
    half = draw_halves(particles, engine.settings.compute.seed)
    everyone = input_poses(particles)
    counted = np.ones(len(half)) if share is None else share
    sums = []
    for h in (0, 1):
        rows = np.flatnonzero((half == h) & (counted > LEAST_SHARE))
        sums.append(reconstruct_half(engine, image_noise(engine, rows), rows, everyone.take(rows), f"{name}half {h + 1}",
                                     share=counted[rows]))
    halves = HalfMaps(*(Map(engine.solved(s).cpu().numpy(), pixel) for s in sums))
    mask = mask_of(engine, halves)
    fsc = compute_fsc(halves, mask, engine.settings.compute.seed)
    combined = engine.solved(*sums, signal_to_noise=2 * signal_to_noise(fsc)).cpu().numpy()
    return Reconstruction(halves, Map(combined, pixel), Map(mask, pixel), fsc)


def mask_of(engine: Engine, halves: HalfMaps) -> np.ndarray:
    """The user's mask, else the solvent boundary of the map, else a sphere of the particle's diameter."""
    if engine.user_mask is not None:
        return engine.user_mask
    box, pixel = halves.first.box_px, halves.first.pixel_size_a
    diameter_a = engine.settings.preprocess.diameter
    radius_px = min(0.48 * box, 0.5 * 1.15 * diameter_a / pixel + 3) if diameter_a else 0.48 * box
    if not engine.settings.mask.auto_mask:
        return sphere_mask(box, radius_px - 4)
    resolution = compute_fsc(halves).resolution_a()
    return solvent_mask(halves.average.voxels, pixel, min(resolution, 60.0), radius_px)


def write_result(result: Reconstruction, output: Path, number: int = 1) -> None:
    """The files of a reconstruction, named as those of class `number` of a refinement."""
    write_map(output / layout.half_name(1, number), result.halves.first)
    write_map(output / layout.half_name(2, number), result.halves.second)
    write_map(output / layout.mask_name(number), result.mask)
    write_fsc(output / layout.fsc_name(number), result.fsc)
    write_map(output / layout.map_name(number), result.combined)
