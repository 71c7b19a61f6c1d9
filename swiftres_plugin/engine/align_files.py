"""Particles aligned to maps that stay as they are: the alignment of one iteration of a refinement, by itself."""
from __future__ import annotations

import platform
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from swiftres_plugin import layout
from swiftres_plugin.engine.align import align_classes
from swiftres_plugin.engine.data.particles import Particles
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.data.state import IterationPlan, RefinementState
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.io.star import write_particles
from swiftres_plugin.engine.io.symmetry import open_symmetry
from swiftres_plugin.engine.io.tables import write_json
from swiftres_plugin.engine.opening import open_engine
from swiftres_plugin.engine.refine import by_row, diameter, planned, start
from swiftres_plugin.engine.report import Reporter, TeeReporter
from swiftres_plugin.engine.run import Inputs, Opened, open_inputs, versions, warn_of_faiss, with_results
from swiftres_plugin.engine.stages.consensus import consensus
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import AlignSettings, RefineSettings, ScheduleSettings


def align_files(inputs: Inputs, settings: AlignSettings, output: Path, reporter: Reporter) -> None:
    """Align the particles of a STAR file and write `particles.star` and `run.json` to the folder `output`.

    Raises `InputError` before any work where a file cannot be used.
    """
    began, reporter = time.time(), TeeReporter(reporter)
    check_repeats(settings)
    chosen = as_refinement(settings)
    opened = open_inputs(inputs, chosen, reporter)
    warn_of_faiss(reporter)
    mask = None if opened.mask is None else opened.mask.voxels
    engine = open_engine(opened.source, open_symmetry(settings.target.symmetry), chosen, reporter, output, mask)
    state = start(engine, opened.references, mask)
    found, agreement = align_everyone(engine, state, settings.consensus.repeats)
    write_particles(output / layout.PARTICLES, posed(opened.particles, found, agreement))
    write_json(output / layout.RUN, provenance(opened, settings, found, agreement, engine, began, reporter.warnings))


def check_repeats(settings: AlignSettings) -> None:
    """Raises `InputError` where there is no gallery to perturb."""
    if settings.consensus.repeats > 1 and settings.target.alignment == "local":
        raise InputError("a local alignment searches no gallery that could be perturbed",
                         found=f"--repeats {settings.consensus.repeats}",
                         remedy="Use --alignment global, or leave --repeats out.")


def as_refinement(settings: AlignSettings) -> RefineSettings:
    """The settings of a refinement whose first iteration aligns what `settings` ask for."""
    target = settings.target
    schedule = ScheduleSettings(initial_resolution=target.resolution, symmetry=target.symmetry, alignment=target.alignment)
    return RefineSettings(schedule=schedule, preprocess=settings.preprocess, search=settings.search, polish=settings.polish,
                          compute=settings.compute)


def align_everyone(engine: Engine, state: RefinementState, repeats: int) -> tuple[Assignment, np.ndarray | None]:
    """Poses of all particles against the references of `state`; of several repeats also the share (N,) that agrees."""
    plan = planned(engine, state)
    if repeats == 1:
        return align_once(engine, state, plan, ""), None
    found = [align_once(engine, state, replace(plan, gallery_seed=r), f"alignment {r + 1}, ") for r in range(repeats)]
    result, share = consensus(found, engine.operators, plan.angular_step_rad, plan.shift_step_a)
    engine.reporter.message(f"{np.mean(share > 0.5):.1%} of the particles have a pose that more than half of the {repeats} "
                            "alignments agree on.")
    return result, share


def align_once(engine: Engine, state: RefinementState, plan: IterationPlan, name: str) -> Assignment:
    """Poses of all particles, each half set with its own noise."""
    diameter_a, parts = diameter(engine, state), []
    for h in (0, 1):
        references = [one.references[h] for one in state.classes]
        parts.append(align_classes(engine, references, state.noise[h], np.flatnonzero(state.half == h), plan,
                                   state.assignment, diameter_a, f"{name}half {h + 1}"))
    return by_row(state.half, parts)


def posed(particles: Particles, found: Assignment, agreement: np.ndarray | None) -> Particles:
    """The particles with their new poses and scores; half sets only where the input had them, as both see one map."""
    done = with_results(particles, found)
    repeated = {} if agreement is None else {"agreement": agreement, "consensus": (agreement > 0.5).astype(int)}
    return replace(done, scores={**done.scores, **repeated})


def provenance(opened: Opened, settings: AlignSettings, found: Assignment, agreement: np.ndarray | None, engine: Engine,
               began: float, warnings: list[str]) -> dict:
    """What stands in run.json."""
    device = engine.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "settings": asdict(settings), "particles": len(opened.particles), "versions": versions(),
        "device": {"kind": device.type, "name": name, "threads": engine.compute.threads},
        "class_sizes": np.bincount(found.class_id, minlength=len(opened.references)).tolist(),
        "agreed": None if agreement is None else float(np.mean(agreement > 0.5)),
        "mean_max_probability": float(found.max_probability.mean()), "seconds": round(time.time() - began, 1),
        "warnings": warnings}
