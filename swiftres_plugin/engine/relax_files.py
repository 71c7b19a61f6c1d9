"""Symmetry relaxation of the particles of a file, or of a finished run."""
from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from swiftres_plugin import layout
from swiftres_plugin.engine.checks import check_reference
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.particles import Particles, Poses
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.given_poses import noise_and_window, opened_mask
from swiftres_plugin.engine.grey_scale import scaled_reference
from swiftres_plugin.engine.io.mrc import MrcSource, read_map
from swiftres_plugin.engine.io.star import write_particles
from swiftres_plugin.engine.io.symmetry import open_symmetry
from swiftres_plugin.engine.io.tables import write_json
from swiftres_plugin.engine.maths.aberrations import shift_of_image
from swiftres_plugin.engine.maths.symmetry import closest_mates
from swiftres_plugin.engine.opening import open_engine
from swiftres_plugin.engine.reconstruct import open_particles
from swiftres_plugin.engine.refine import draw_halves, input_poses
from swiftres_plugin.engine.relax import Question, Relaxation, relax, scattered
from swiftres_plugin.engine.report import Reporter, TeeReporter
from swiftres_plugin.engine.run import fitted, versions
from swiftres_plugin.engine.stages.postprocess import masked_reference
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import RefineSettings, RelaxationSettings, RelaxSettings

LEAST_AGREEMENT = 0.35  # correlation of the parts that break the symmetry; chance reaches 0.2 in the likest of four turns

MOVING = 0.05  # share of particles that change mate in the last round and should be told of


@dataclass(frozen=True)
class RelaxInputs:
    """The files: particles with poses; a map in C1 and a mask, or empty."""

    particles: str
    reference: str = ""
    mask: str = ""


def inputs_of_run(run: Path) -> RelaxInputs:
    """The particles and the mask that a refinement left. Raises `InputError` when the folder holds no finished run."""
    if not (run / layout.PARTICLES).is_file():
        raise InputError("this folder holds no finished run", where=run, expected=layout.PARTICLES)
    mask = run / layout.mask_name()
    return RelaxInputs(str(run / layout.PARTICLES), mask=str(mask) if mask.is_file() else "")


def relax_files(inputs: RelaxInputs, settings: RelaxSettings, output: Path, reporter: Reporter) -> None:
    """Relax the particles of a STAR file and write `particles.star` and `run.json` to the folder `output`.

    Raises `InputError` before any work where a file cannot be used.
    """
    began, reporter, wanted = time.time(), TeeReporter(reporter), settings.relaxation
    particles = open_particles(inputs.particles)
    operators = open_symmetry(wanted.symmetry)
    if len(operators) == 1:
        raise InputError("C1 has no mates to choose among", found=f"--symmetry {wanted.symmetry}",
                         remedy="Name the group that the structure nearly has.")
    window = opened_mask(inputs.mask, particles)
    reference = opened_reference(inputs.reference, particles, reporter) if inputs.reference else None
    chosen = RefineSettings(preprocess=settings.preprocess, compute=settings.compute)
    engine = open_engine(MrcSource(particles), np.eye(3)[None], chosen, reporter, output)
    found, half = answered(engine, operators, window, reference, settings)
    write_particles(output / layout.PARTICLES, relaxed_particles(particles, half, found, operators))
    warn_of_choice(found, wanted, reporter)
    write_json(output / layout.RUN, {
        "settings": asdict(settings), "particles": len(particles), "mates": len(operators), "versions": versions(),
        "changes": found.changes, "mean_probability": float(found.probability.mean()), "agreement": found.agreement,
        "seconds": round(time.time() - began, 1), "warnings": reporter.warnings})


def warn_of_choice(found: Relaxation, wanted: RelaxationSettings, reporter: Reporter) -> None:
    """Tell where nothing seems to break the symmetry, and where the choice did not come to rest."""
    if found.agreement < LEAST_AGREEMENT:
        reporter.warning(f"The two halves of the particles hardly agree in what breaks {wanted.symmetry} (correlation "
                         f"{found.agreement:.2f}): nothing may break it, or nothing that shows to {wanted.resolution:g} A. "
                         "Each particle's own probability does not tell this.")
    if found.changes[-1] > MOVING:
        reporter.warning(f"{found.changes[-1]:.0%} of the particles still changed their mate in the last round: the choice "
                         "did not come to rest.")


def opened_reference(path: str, particles: Particles, reporter: Reporter) -> torch.Tensor:
    """The map of a file in the particles' box."""
    reference: Map = read_map(path)
    check_reference(reference, path)
    return torch.from_numpy(np.array(fitted(reference, particles, reporter).voxels))


def answered(engine: Engine, operators: np.ndarray, mask: np.ndarray | None, reference: torch.Tensor | None,
             settings: RelaxSettings) -> tuple[Relaxation, np.ndarray]:
    """The relaxation and the half sets (N,) that it kept apart."""
    wanted = settings.relaxation
    half = draw_halves(engine.spectra.particles, settings.compute.seed)
    poses = input_poses(engine.spectra.particles)
    question = asked(engine, operators, mask, poses, half)
    if reference is not None:
        masked = scaled_reference(engine, masked_reference(reference, question.window), question.noise[0],
                                  np.flatnonzero(half == 0), poses, wanted.resolution)
        return relax(engine, question, poses, wanted.resolution, masked), half
    if wanted.scatter:
        poses = scattered(poses, operators, settings.compute.seed)
    return relax(engine, question, poses, wanted.resolution), half


def asked(engine: Engine, operators: np.ndarray, mask: np.ndarray | None, poses: Assignment, half: np.ndarray) -> Question:
    """The question with the noise that the map of the poses as they are leaves, and its solvent mask where none is given."""
    noise, window = noise_and_window(engine, poses, half, mask)
    return Question(operators, noise, half, window)


def relaxed_particles(particles: Particles, half: np.ndarray, found: Relaxation, operators: np.ndarray) -> Particles:
    """The particles at their chosen mates; the operator that was chosen (from 1), and its probability, as columns."""
    if particles.poses is None:
        raise ValueError("particles without poses cannot be relaxed")
    rotations = found.poses.image_to_volume
    mates, _ = closest_mates(rotations, particles.poses.image_to_volume, operators)
    number = np.abs(mates[:, None] - operators[None]).sum(axis=(2, 3)).argmin(axis=1) + 1
    scores = {**particles.scores, "relaxed_mate": number, "relaxed_probability": found.probability}
    return replace(particles, poses=Poses(rotations, shift_of_image(particles, found.poses.shift_a)), half=half, scores=scores)
