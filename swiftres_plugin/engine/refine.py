"""The corridor: iterate, and iterate until at rest. A generator of states; the caller writes files and reports."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from swiftres_plugin.engine.align import (
    Engine,
    align_half,
    image_noise,
    joined,
    prepare_search,
    reconstruct_half,
    residual_noise,
    search_rows,
)
from swiftres_plugin.engine.data.maps import Accumulator, HalfMaps, Map
from swiftres_plugin.engine.data.particles import Particles
from swiftres_plugin.engine.data.search import Assignment, Candidates
from swiftres_plugin.engine.data.state import IterationPlan, IterationRecord, RefinementState
from swiftres_plugin.engine.maths.fourier import filter_shells, low_pass_gain
from swiftres_plugin.engine.maths.slices import extract_slices
from swiftres_plugin.engine.maths.symmetry import closest_mates
from swiftres_plugin.engine.plan import at_rest, beyond_start, next_last_shell, plan_iteration, reconstructed_shell
from swiftres_plugin.engine.stages import local
from swiftres_plugin.engine.stages.noise import per_sample
from swiftres_plugin.engine.stages.postprocess import (
    compute_fsc,
    join_low_resolution,
    masked_reference,
    particle_diameter_px,
    signal_to_noise,
    solvent_mask,
    sphere_mask,
)

SCALE_PARTICLES = 500  # sample that finds the grey scale of the starting map
JOIN_A = 40.0  # the halves share what is coarser than this, so that they keep one orientation


def draw_halves(particles: Particles, seed: int) -> np.ndarray:
    """(N,) 0 or 1: the input's half sets, or a seeded draw of two sets of equal size."""
    if particles.half is not None:
        return particles.half
    half = np.zeros(len(particles), dtype=np.int64)
    half[np.random.default_rng([seed, 1]).permutation(len(particles))[: len(particles) // 2]] = 1
    return half


def start(engine: Engine, reference: Map, mask: np.ndarray | None) -> RefinementState:
    """The state before the first iteration: the starting map low-passed, on the grey scale of the particles."""
    band = engine.spectra.band
    schedule = engine.settings.schedule
    gain = low_pass_gain(reference.box_px, reference.pixel_size_a, schedule.initial_resolution)
    voxels = filter_shells(torch.from_numpy(reference.voxels.copy()), gain)
    window = mask if mask is not None else sphere_mask(reference.box_px, 0.46 * reference.box_px)
    voxels = masked_reference(voxels, window)
    half = draw_halves(engine.spectra.particles, engine.settings.compute.seed)
    noise = np.stack([image_noise(engine, np.flatnonzero(half == h)) for h in (0, 1)])
    state = RefinementState(0, (voxels, voxels), noise, half, band.shell_of(schedule.initial_resolution), mask=mask)
    if schedule.alignment == "local":
        state = replace(state, assignment=input_poses(engine.spectra.particles))
    scale = grey_scale(engine, state, diameter(engine, state))
    return replace(state, references=(voxels * scale, voxels * scale))


def input_poses(particles: Particles) -> Assignment:
    """The poses that came with the particles, as the result of an iteration that never was."""
    if particles.poses is None:
        raise ValueError("local refinement needs input poses")
    n = len(particles)
    return Assignment(particles.poses.image_to_volume, particles.poses.shift_a, np.zeros(n), np.ones(n), np.zeros((n, 5, 5)))


def diameter(engine: Engine, state: RefinementState) -> float:
    """The particle's diameter in angstroms: what the user said, or what the reference shows."""
    if engine.settings.preprocess.diameter:
        return engine.settings.preprocess.diameter
    return particle_diameter_px(state.references[0].cpu().numpy()) * engine.spectra.band.pixel_size_a


def grey_scale(engine: Engine, state: RefinementState, diameter_a: float) -> float:
    """Factor that brings the starting map to the particles' scale: least squares over a sample at its best poses.

    The search needs a scale to weigh the power of references, so scale and poses are found in turns. Warns when the
    negative of the map explains the particles better.
    """
    rows = _sample(state)
    if state.assignment is not None:
        return max(fitted_scale(engine, state, rows, 1.0, given_candidates(state.assignment, rows))[0], 1e-6)
    positive, gain = searched_scale(engine, state, diameter_a, rows, 1)
    _, negative_gain = searched_scale(engine, state, diameter_a, rows, -1)
    if negative_gain > 1.1 * gain:
        engine.reporter.warning("The particles look like the negative of the starting map. Particles must be white on black: "
                                "if they are not, start again with --invert-contrast.")
    return positive


def _sample(state: RefinementState) -> np.ndarray:
    rows = np.flatnonzero(state.half == 0)
    return rows[:: max(1, len(rows) // SCALE_PARTICLES)]


def given_candidates(poses: Assignment, rows: np.ndarray) -> Candidates:
    """The poses of `rows` as one candidate each."""
    rotation, shift = torch.from_numpy(poses.image_to_volume[rows]).float(), torch.from_numpy(poses.shift_a[rows]).float()
    return Candidates(rotation[:, None], shift[:, None], torch.zeros((len(rows), 1)))


def searched_scale(engine: Engine, state: RefinementState, diameter_a: float, rows: np.ndarray,
                   sign: int) -> tuple[float, float]:
    """Scale of the map times `sign`, with poses searched anew at each of three scales, and the gain in likelihood."""
    plan = plan_iteration(state, engine.spectra.band, diameter_a, engine.settings)
    band = engine.spectra.band.up_to(state.last_shell).to(engine.device)
    volume = sign * engine.volume(state.references[0], state.last_shell)
    images = engine.batch(rows, band)
    few = extract_slices(volume, torch.eye(3, device=engine.device)[None], band.wave_px)
    scale = 0.3 * float(((images.images.abs() ** 2).mean() / (few.abs() ** 2 * images.ctf ** 2).mean()).sqrt())
    gain = 0.0
    for _ in range(3):
        searcher = prepare_search(engine, volume * scale, state.noise[0], rows, plan)
        centre = np.zeros((len(engine.spectra), 2))
        found = joined(search_rows(engine, searcher, state.noise[0], rows, centre, report=False)).best(1)
        factor, gain = fitted_scale(engine, state, rows, sign * scale, found)
        scale *= min(max(factor, 0.05), 20.0)
    return scale, gain


def fitted_scale(engine: Engine, state: RefinementState, rows: np.ndarray, scale: float,
                 found: Candidates) -> tuple[float, float]:
    """Least-squares factor on top of `scale` at given poses, and the log-likelihood that it gains over no map at all."""
    band = engine.spectra.band.up_to(state.last_shell).to(engine.device)
    batch = engine.batch(rows, band)
    power = per_sample(state.noise[0], batch)
    volume = scale * engine.volume(state.references[0], state.last_shell)
    slices = extract_slices(volume, found.image_to_volume[:, 0].to(engine.device), band.wave_px)
    predicted = local.model(batch, slices, found.shift_a[:, 0].to(engine.device))
    cross = float(((batch.images * predicted.conj()).real / power).sum())
    square = float((predicted.abs() ** 2 / power).sum())
    return cross / max(square, 1e-30), cross ** 2 / max(square, 1e-30)


def iterate(engine: Engine, state: RefinementState, plan: IterationPlan) -> RefinementState:
    """One iteration: each half alone, then their meeting."""
    engine.seconds.clear()
    diameter_a = diameter(engine, state)
    parts, sums, noises = [], [], []
    for h in (0, 1):
        rows = np.flatnonzero(state.half == h)
        poses, total, noise = refine_half(engine, state.references[h], state.noise[h], rows, plan, state.assignment,
                                          diameter_a, f"iteration {plan.number}, half {h + 1}")
        parts.append(poses)
        sums.append(total)
        noises.append(noise)
    assignment = by_row(state.half, parts)
    with engine.timed("postprocess"):
        return meet(engine, replace(state, noise=np.stack(noises)), plan, assignment, sums, diameter_a)


def refine_half(engine: Engine, reference: torch.Tensor, noise: np.ndarray, rows: np.ndarray, plan: IterationPlan,
                previous: Assignment | None, diameter_a: float, name: str) -> tuple[Assignment, Accumulator, np.ndarray]:
    """Poses, reconstruction sums and noise of one half, from its own map alone."""
    poses = align_half(engine, reference, noise, rows, plan, previous, diameter_a, name)
    noise = residual_noise(engine, reference, rows, poses)
    last_shell = reconstructed_shell(plan, engine.spectra.band)
    return poses, reconstruct_half(engine, noise, rows, poses, name, last_shell), noise


def by_row(half: np.ndarray, parts: list[Assignment]) -> Assignment:
    """The halves' results in the order of the particles."""
    order = np.argsort(np.concatenate([np.flatnonzero(half == h) for h in (0, 1)]))
    both = Assignment.joined(parts)
    return Assignment(*(getattr(both, name)[order] for name in Assignment.__slots__))


def meet(engine: Engine, state: RefinementState, plan: IterationPlan, assignment: Assignment, sums: list[Accumulator],
         diameter_a: float) -> RefinementState:
    """FSC, masks, regularised maps and the limits of the next iteration."""
    settings, band = engine.settings, engine.spectra.band
    pixel = band.pixel_size_a
    halves = HalfMaps(*(Map(engine.solved(s).cpu().numpy(), pixel) for s in sums))
    window = working_mask(engine, state, halves, diameter_a)
    fsc = compute_fsc(halves, window, settings.compute.seed)
    ratio, resolution = signal_to_noise(fsc), fsc.resolution_a()
    limit = band.shell_of(settings.schedule.initial_resolution)
    held = state.last_shell <= limit and not beyond_start(fsc, band, limit)
    if held:
        ratio[limit + 1:] = 0
        resolution = max(resolution, band.box_a / limit)
    maps = [engine.solved(s, ratio) for s in sums]
    join = band.shell_of(max(JOIN_A, settings.schedule.initial_resolution))
    references = join_low_resolution(maps[0], maps[1], join)
    combined = engine.solved(sums[0] + sums[1], 2 * ratio).cpu().numpy()
    record = figures(engine, plan, state.assignment, assignment, resolution)
    history = (*state.history, record)
    state = replace(
        state, number=plan.number, references=tuple(masked_reference(r, window) for r in references),
        assignment=assignment, halves=halves, combined=combined, mask=window, fsc=fsc, history=history)
    last_shell = limit if held else next_last_shell(resolution, band, state, settings)
    return replace(state, last_shell=last_shell, at_rest=at_rest(history, diameter_a, settings))


def working_mask(engine: Engine, state: RefinementState, halves: HalfMaps, diameter_a: float) -> np.ndarray:
    """The user's mask, else the solvent boundary of the current map, else a sphere."""
    box, pixel = engine.spectra.band.box_px, engine.spectra.band.pixel_size_a
    if engine.user_mask is not None:
        return engine.user_mask
    radius = min(0.48 * box, 0.5 * 1.15 * diameter_a / pixel + 3) if engine.settings.preprocess.diameter else 0.48 * box
    if not engine.settings.mask.auto_mask:
        return sphere_mask(box, radius - 4)
    resolution = state.history[-1].resolution_a if state.history else engine.settings.schedule.initial_resolution
    return solvent_mask(halves.average.voxels, pixel, min(resolution, 60.0), radius)


def figures(engine: Engine, plan: IterationPlan, before: Assignment | None, after: Assignment,
            resolution_a: float) -> IterationRecord:
    """The record of an iteration."""
    turn, move = np.nan, np.nan
    if before is not None:
        turn = float(np.median(closest_mates(after.image_to_volume, before.image_to_volume, engine.operators)[1]))
        move = float(np.median(np.linalg.norm(after.shift_a - before.shift_a, axis=1)))
    return IterationRecord(
        plan.number, plan.exhaustive, plan.last_shell / engine.spectra.band.box_a, resolution_a, turn, move,
        float(after.max_probability.mean()), dict(engine.seconds))


def refine(engine: Engine, state: RefinementState) -> Iterator[RefinementState]:
    """States after each iteration, until the refinement is at rest or has used its iterations."""
    while not state.at_rest and state.number < engine.settings.schedule.iterations:
        plan = plan_iteration(state, engine.spectra.band, diameter(engine, state), engine.settings)
        state = iterate(engine, state, plan)
        yield state
