"""2D classification as files: check the particles, find the classes, write averages, particles and a contact sheet."""
from __future__ import annotations

import dataclasses
import resource
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from swiftres_plugin import layout
from swiftres_plugin.engine.checks import check_optics
from swiftres_plugin.engine.class_averages import conclude
from swiftres_plugin.engine.class_search import class_count, find_classes
from swiftres_plugin.engine.coarse import coarse_spectra
from swiftres_plugin.engine.data.classes import ClassAverages, ClassSearch, Placements
from swiftres_plugin.engine.data.particles import Particles, Poses
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.io.mrc import MrcSource, StackWriter, check_stacks
from swiftres_plugin.engine.io.pictures import draw_classes
from swiftres_plugin.engine.io.star import read_particles, write_particles
from swiftres_plugin.engine.io.star_classes import write_classes
from swiftres_plugin.engine.io.tables import write_json
from swiftres_plugin.engine.maths.geometry import euler_to_matrix
from swiftres_plugin.engine.opening import open_engine
from swiftres_plugin.engine.refine import draw_halves
from swiftres_plugin.engine.report import Reporter, TeeReporter
from swiftres_plugin.engine.run import versions
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import Classify2dSettings, ClassSettings, RefineSettings

LEAST_PARTICLES = 5  # for each class


def new_classification(particles: str, settings: Classify2dSettings, output: Path, reporter: Reporter) -> ClassAverages:
    """Part the particles of a STAR file into classes of one view, and write them to the folder `output`.

    Raises `InputError` before any work where the particles or the settings cannot be used.
    """
    began = time.time()
    reporter = TeeReporter(reporter)
    found = open_particles(particles, settings.classification)
    asked = {"inputs": {"particles": particles}, "settings": dataclasses.asdict(settings)}
    shared = RefineSettings(preprocess=settings.preprocess, compute=settings.compute)
    whole = open_engine(MrcSource(found), np.eye(3)[None], shared, reporter, output)
    write_json(output / layout.SETTINGS, asked)
    engine = replace(whole, spectra=coarse_spectra(whole.spectra, settings.classification.finest_resolution))
    search = find_classes(engine, settings.classification)
    half = draw_halves(found, settings.compute.seed)
    averages, placements = conclude(engine, whole, search, settings.classification, half)
    write_classification(output, averages, placements, found)
    facts = record(averages, search, whole, reporter.warnings, time.time() - began)
    write_json(output / layout.RUN, {**asked, **facts})
    tell(averages, output, reporter)
    return averages


def open_particles(path: str, settings: ClassSettings) -> Particles:
    """The particles, checked against the settings."""
    particles = read_particles(path)
    check_optics(particles.optics, path)
    check_stacks(particles)
    least = LEAST_PARTICLES * class_count(settings, len(particles))
    if len(particles) < least:
        raise InputError("too few particles for so many classes", where=path, found=len(particles),
                         expected=f"at least {least}", remedy="Lower --classes.")
    limits = [2 * particles.pixel_size_a, settings.finest_resolution, settings.search_resolution,
              settings.coarsest_resolution]
    if limits[1] > limits[2] or limits[2] > limits[3]:
        raise InputError("resolutions must not become finer from one step to the next",
                         found=f"finest {limits[1]:g}, search {limits[2]:g}, coarsest {limits[3]:g} A",
                         expected="finest <= search <= coarsest")
    if limits[2] < limits[0]:
        raise InputError("the search resolution is finer than the particles", where=path, found=f"{limits[2]:g} A",
                         expected=f"at least {limits[0]:g} A (Nyquist)", remedy="Raise --search-resolution.")
    return particles


def write_classification(output: Path, averages: ClassAverages, placements: Placements, particles: Particles) -> None:
    """Averages, particles and contact sheet of a finished classification."""
    count, box_px, _ = averages.images.shape
    with StackWriter(output / layout.CLASSES, count, box_px, averages.pixel_size_a) as stack:
        stack.write(averages.images)
    write_classes(output / layout.CLASS_TABLE, averages)
    scores = {"log_likelihood": placements.log_likelihood, "max_probability": placements.max_probability,
              "class_id": placements.class_id}
    poses = Poses(euler_to_matrix(0.0, 0.0, placements.psi_rad), placements.shift_a)
    write_particles(output / layout.PARTICLES, replace(particles, poses=poses, scores={**particles.scores, **scores}))
    draw_classes(output / layout.CONTACT_SHEET, averages)


def record(averages: ClassAverages, search: ClassSearch, whole: Engine, warnings: list[str], seconds: float) -> dict:
    """What stands in run.json beside the settings."""
    known = np.isfinite(averages.resolution_a)
    return {
        "particles": len(whole.spectra), "classes": len(averages), "class_sizes": averages.size.tolist(),
        "resolution_a": [round(float(value), 2) if there else None for value, there in zip(averages.resolution_a, known)],
        "evidence": [round(value, 3) for value in search.evidence], "versions": versions(),
        "device": {"kind": whole.device.type, "threads": whole.compute.threads}, "seconds": round(seconds, 1),
        "warnings": warnings, "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def tell(averages: ClassAverages, output: Path, reporter: Reporter) -> None:
    largest = averages.size[0] / averages.size.sum()
    used = int((averages.size > 0).sum())
    reporter.message(f"{used} classes of {len(averages)} hold particles, the largest {largest:.0%} of them: "
                     f"{output / layout.CLASSES}, {output / layout.CONTACT_SHEET}")
