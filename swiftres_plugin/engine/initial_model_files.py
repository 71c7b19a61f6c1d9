"""Starting maps as files: open and check the particles, find the maps, write them with poses, a record and a picture."""
from __future__ import annotations

import dataclasses
import resource
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from swiftres_plugin import layout
from swiftres_plugin.engine.checks import check_box
from swiftres_plugin.engine.coarse import coarse_spectra
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.particles import Particles
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.initial_model import InitialModels, find_models, finest_resolution
from swiftres_plugin.engine.io.mrc import MrcSource, check_stacks, write_map
from swiftres_plugin.engine.io.png import enlarged, montage, stretched, write_png
from swiftres_plugin.engine.io.star import read_particles, write_particles
from swiftres_plugin.engine.io.symmetry import open_symmetry
from swiftres_plugin.engine.io.tables import write_json
from swiftres_plugin.engine.opening import open_engine
from swiftres_plugin.engine.report import Reporter, TeeReporter
from swiftres_plugin.engine.run import versions, with_results
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import InitialModelSettings, ModelSettings, RefineSettings

HAND = ("Projections do not tell a map from its mirror image: the hand of these maps is one of two by chance. Look at "
        "helices once they are resolved, and flip the map if they turn the wrong way.")
LEAST_PARTICLES = 20  # for each map
DOUBTFUL = ("These maps may mean nothing: of the {followed} likeliest random starts {agreeing} came to them. See {picture}; "
            "more --starts, more particles or the right --symmetry may help, or a finer --finest-resolution where the "
            "particle looks round at {resolution:.0f} A.")
REFINED_FROM = 1.6  # of the resolution that maps reach: what a refinement may trust of them


def new_initial_model(particles: str, settings: InitialModelSettings, output: Path, reporter: Reporter) -> InitialModels:
    """Find starting maps of the particles of a STAR file and write them to the folder `output`.

    Raises `InputError` before any work where the particles or the settings cannot be used.
    """
    began = time.time()
    reporter = TeeReporter(reporter)
    found = open_particles(particles, settings.model)
    operators = open_symmetry(settings.model.symmetry)
    shared = RefineSettings(preprocess=settings.preprocess, compute=settings.compute)
    whole = open_engine(MrcSource(found), operators, shared, reporter, output)
    asked = {"inputs": {"particles": particles}, "settings": dataclasses.asdict(settings)}
    write_json(output / layout.SETTINGS, asked)
    engine = replace(whole, spectra=coarse_spectra(whole.spectra, finest_resolution(settings.model, whole.spectra.band.box_a)))
    models = find_models(engine, settings.model, found.box_px)
    reporter.warning(HAND)
    if is_doubtful(models):
        reporter.warning(DOUBTFUL.format(agreeing=models.agreeing, followed=len(models.agreement), picture=layout.SLICES,
                                         resolution=models.resolution_a))
    write_models(output, models, found)
    write_json(output / layout.RUN, {**asked, **record(models, engine, reporter.warnings, time.time() - began)})
    tell(models, output, reporter)
    tell_next(models, settings.model, particles, output, reporter)
    return models


def is_doubtful(models: InitialModels) -> bool:
    """Whether no other start came to the same maps."""
    return models.agreeing < 2


def open_particles(path: str, settings: ModelSettings) -> Particles:
    """The particles, checked against the settings."""
    particles = read_particles(path)
    check_box(particles.box_px, particles.pixel_size_a, path)
    check_stacks(particles)
    least = LEAST_PARTICLES * settings.count
    if len(particles) < least:
        raise InputError("too few particles", where=path, found=len(particles), expected=f"at least {least}")
    finest, asked = 2 * particles.pixel_size_a, settings.finest_resolution
    if 0 < asked < finest:
        raise InputError("the finest resolution is finer than the particles", where=path, found=f"{asked:g} A",
                         expected=f"at least {finest:g} A (Nyquist)", remedy="Raise --finest-resolution.")
    return particles


def write_models(output: Path, models: InitialModels, particles: Particles) -> None:
    """Maps, particles and picture of a finished search."""
    for number, one in enumerate(models.maps, 1):
        write_map(output / layout.map_name(number), one)
    write_particles(output / layout.PARTICLES, with_results(particles, models.assignment))
    write_png(output / layout.SLICES, pictured(models.maps))


def pictured(maps: tuple[Map, ...]) -> np.ndarray:
    """One row a map: its central sections across z, y and x, then its projections along them; y or z upwards."""
    rows = []
    for one in maps:
        voxels, middle = one.voxels, one.box_px // 2
        sections = [voxels[middle], voxels[:, middle], voxels[:, :, middle]]
        projections = [voxels.sum(axis) for axis in range(3)]
        rows.append([_tile(tile, sections) for tile in sections] + [_tile(tile, projections) for tile in projections])
    return montage(rows)


def _tile(tile: np.ndarray, group: list[np.ndarray]) -> np.ndarray:
    """A picture on the grey scale that the group shares."""
    low, high = min(float(one.min()) for one in group), max(float(one.max()) for one in group)
    return enlarged(stretched(tile[::-1], low, high))


def class_sizes(assignment: Assignment, count: int) -> list[int]:
    return [int(size) for size in np.bincount(assignment.class_id, minlength=count)]


def record(models: InitialModels, engine: Engine, warnings: list[str], seconds: float) -> dict:
    """What stands in run.json beside the settings."""
    return {
        "particles": len(engine.spectra), "class_sizes": class_sizes(models.assignment, len(models.maps)),
        "handedness": "undetermined", "resolution_a": round(models.resolution_a, 2),
        "initial_resolution_a": initial_resolution(models), "doubtful": is_doubtful(models),
        "evidence": [round(value, 3) for value in models.evidence],
        "agreement": [round(share, 3) for share in models.agreement], "agreeing": models.agreeing, "versions": versions(),
        "device": {"kind": engine.device.type, "threads": engine.compute.threads}, "seconds": round(seconds, 1),
        "warnings": warnings, "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def tell(models: InitialModels, output: Path, reporter: Reporter) -> None:
    sizes = class_sizes(models.assignment, len(models.maps))
    for number, size in enumerate(sizes, 1):
        reporter.message(f"Map of {size} particles: {output / layout.map_name(number)}")
    reporter.message(f"{models.agreeing} of the {len(models.agreement)} likeliest random starts came to the same maps, at "
                     f"{models.resolution_a:.1f} A: half or more of the particles shown to them stand alike.")


def tell_next(models: InitialModels, settings: ModelSettings, particles: str, output: Path, reporter: Reporter) -> None:
    """The command that goes on from here."""
    references = " ".join(f"--reference {output / layout.map_name(number)}" for number in range(1, len(models.maps) + 1))
    reporter.message(f"Go on with: swiftres refine --particles {particles} {references} --initial-resolution "
                     f"{initial_resolution(models):g} --symmetry {settings.symmetry} --output RUN")


def initial_resolution(models: InitialModels) -> float:
    """Where a refinement of the maps begins, in whole angstroms."""
    return float(round(REFINED_FROM * models.resolution_a))
