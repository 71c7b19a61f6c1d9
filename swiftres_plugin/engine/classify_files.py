"""Classes of the particles of a STAR file at the poses it gives: files in, files out."""
from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from swiftres_plugin import layout
from swiftres_plugin.engine.checks import check_different, check_output_folder, check_reference
from swiftres_plugin.engine.class_maps import Setting
from swiftres_plugin.engine.classify import LEAST_AGREEMENT, Round, classify, rounds, started_from
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.particles import Particles
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.given_poses import COARSE_A, noise_and_window, opened_mask
from swiftres_plugin.engine.grey_scale import scaled_reference
from swiftres_plugin.engine.io.mrc import MrcSource, read_map
from swiftres_plugin.engine.io.star import write_particles
from swiftres_plugin.engine.io.symmetry import open_symmetry
from swiftres_plugin.engine.io.tables import write_json
from swiftres_plugin.engine.opening import open_engine
from swiftres_plugin.engine.reconstruct import LEAST_PARTICLES, open_particles, reconstruct, write_result
from swiftres_plugin.engine.refine import draw_halves, input_poses
from swiftres_plugin.engine.report import Reporter, TeeReporter
from swiftres_plugin.engine.run import fitted, versions
from swiftres_plugin.engine.stages.postprocess import masked_reference
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import ClassifySettings, ReconstructSettings, RefineSettings

MOVING = 0.05  # share of particles that move in the last round and should be told of


@dataclass(frozen=True)
class ClassInputs:
    """The files: particles with poses; maps to begin with, or none; a mask, or empty."""

    particles: str
    references: tuple[str, ...] = ()
    mask: str = ""


def classify_files(inputs: ClassInputs, settings: ClassifySettings, output: Path, reporter: Reporter) -> Round:
    """Divide the particles of a STAR file into classes and write them, and each class's maps, to the folder `output`.

    Raises `InputError` before any work where a file cannot be used.
    """
    began, reporter = time.time(), TeeReporter(reporter)
    check_output_folder(output)
    particles = open_particles(inputs.particles)
    operators = open_symmetry(settings.classification.symmetry)
    mask, references = opened_mask(inputs.mask, particles), opened_references(inputs.references, particles, reporter)
    chosen = RefineSettings(preprocess=settings.preprocess, compute=settings.compute,
                            reconstruct=ReconstructSettings(pose_samples=1))  # a STAR file tells no uncertainty
    half = draw_halves(particles, settings.compute.seed)
    engine = open_engine(MrcSource(replace(particles, half=half)), operators, chosen, reporter, output)
    found = parted(engine, references, mask, settings)
    warn_of_classes(found[-1], reporter)
    write_classes(engine, found[-1], output)
    write_json(output / layout.RUN, {
        "inputs": asdict(inputs), "settings": asdict(settings), "particles": len(particles), "versions": versions(),
        **figures(found), "seconds": round(time.time() - began, 1), "warnings": reporter.warnings})
    return found[-1]


def opened_references(paths: Sequence[str], particles: Particles, reporter: Reporter) -> tuple[Map, ...]:
    """The maps to begin with, in the particles' box. Raises `InputError` for a single one, or for two that are alike."""
    if len(paths) == 1:
        raise InputError("one map makes no classes", where=paths[0], expected="two or more, or none",
                         remedy="Leave --reference out: the classes are found from the particles.")
    maps = [read_map(path) for path in paths]
    for one, path in zip(maps, paths):
        check_reference(one, path)
    on_grid = tuple(fitted(one, particles, reporter) for one in maps)
    check_different(on_grid, paths, COARSE_A)
    return on_grid


def parted(engine: Engine, references: Sequence[Map], mask: np.ndarray | None, settings: ClassifySettings) -> list[Round]:
    """The rounds that divide the particles, from the references where there are any."""
    asked, particles = settings.classification, engine.spectra.particles
    half, poses = draw_halves(particles, settings.compute.seed), input_poses(particles)
    noise, window = noise_and_window(engine, poses, half, mask)
    setting = Setting(poses, noise, half, window, hard=asked.assignment == "hard")
    if not references:
        return classify(engine, setting, asked.classes, asked.resolution, asked.starts, settings.compute.seed)
    scaled = [scaled_reference(engine, masked_reference(torch.from_numpy(np.array(one.voxels)), window), noise[0],
                               np.flatnonzero(half == 0), poses, asked.resolution) for one in references]
    return rounds(engine, setting, started_from(engine, setting, scaled, asked.resolution), asked.resolution)


def warn_of_classes(last: Round, reporter: Reporter) -> None:
    """Tell of classes that are empty, of those that the halves do not agree in, and where they did not come to rest."""
    if last.changes > MOVING:
        reporter.warning(f"{last.changes:.0%} of the particles still moved in the last round: the classes did not come to "
                         "rest.")
    if last.doubt:
        reporter.warning(f"{last.doubt} More particles, fewer classes or a coarser resolution may tell.")
    for number, (size, agreement) in enumerate(zip(last.shares.sum(axis=0), last.agreement), 1):
        if size < LEAST_PARTICLES:
            reporter.warning(f"Class {number} is empty: the particles do not need so many classes.")
        elif agreement < LEAST_AGREEMENT and not last.doubt:
            reporter.warning(f"The two halves of the particles hardly agree in what sets class {number} apart (correlation "
                             f"{agreement:.2f}): it may be noise.")


def write_classes(engine: Engine, last: Round, output: Path) -> None:
    """particles.star with classes and their probability, and the maps of every class that is not empty."""
    particles, number = engine.spectra.particles, last.shares.argmax(axis=1)
    scores = {**particles.scores, "class_id": number, "class_probability": last.shares.max(axis=1)}
    write_particles(output / layout.PARTICLES, replace(particles, scores=scores))
    for k, size in enumerate(last.shares.sum(axis=0)):
        if size >= LEAST_PARTICLES:
            write_result(reconstruct(engine, last.shares[:, k], f"class {k + 1}, "), output, k + 1)


def figures(found: Sequence[Round]) -> dict:
    """What stands in run.json of the rounds."""
    last = found[-1]
    return {"class_sizes": np.bincount(last.shares.argmax(axis=1), minlength=last.shares.shape[1]).tolist(),
            "class_weights": last.shares.sum(axis=0).round(1).tolist(), "class_agreement": last.agreement.round(3).tolist(),
            "class_entropy": last.entropy, "class_certainty": last.certainty, "evidence": last.evidence,
            "rounds": [{"changes": one.changes, "entropy": one.entropy, "evidence": one.evidence} for one in found]}
