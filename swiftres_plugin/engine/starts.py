"""Maps of views from random starts: expectation maximisation over all orientations, first of classes, then of particles.

The sums of classes tell orientations well and are few, so that many starts over them take seconds. But where classes mix views
they draw even the right map away; particles do not, so the likeliest maps go on over some single particles. Particles that no
map was made of judge all of them: what was fitted to noise explains them no better than nothing does.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
import torch

from swiftres_plugin.engine.agreement import Standing, agreement
from swiftres_plugin.engine.coarse import radius_px
from swiftres_plugin.engine.data.maps import Accumulator
from swiftres_plugin.engine.data.search import Band
from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.maths.fourier import filter_shells, low_pass_gain
from swiftres_plugin.engine.maths.geometry import (
    direction_grid,
    euler_to_matrix,
    random_rotations,
    rotations_from_directions,
    shift_grid,
)
from swiftres_plugin.engine.maths.polar import cell_area, real_rings_of, ring_angles, rings_of
from swiftres_plugin.engine.maths.slices import empty_sums, extract_slices, fourier_volume, insert_slices
from swiftres_plugin.engine.maths.symmetry import in_asymmetric_unit, turns_of_axes
from swiftres_plugin.engine.stages.postprocess import masked_reference, sphere_mask
from swiftres_plugin.engine.stages.reconstruct import finished, solve
from swiftres_plugin.engine.stages.turns import Placings, Templates, TurnSums, best_turns, soft_turns
from swiftres_plugin.engine.views import Views
from swiftres_plugin.settings import ModelSettings

COARSER = 1.6  # the first step's resolution, in units of the last one's
STEPS = 20  # of a start; in the first half classes stand where their averages are centred,
CHOSEN = 1 / 3  # and then this part of the starts goes on
BEGINNING = 1 / 3  # of the classes, at random orientations, make the first map of a start
PARTICLE_STEPS = 10  # over single particles,
LIKELIEST = 3  # of the maps of classes
SIGNAL_TO_NOISE = 4.0  # of the sums, assumed on every shell in use
SMOOTHING = 0.1  # of the maps' shares, towards equal ones: keeps small classes alive
SAME_STEPS = 2.0  # of the last grid: particles that stand no farther apart stand alike
SCORE_BYTES = 28  # working memory per score


@dataclass(frozen=True, eq=False, slots=True)
class Step:
    """The grid of one step: finest ring compared, frames (G, 3, 3) whose turns in the plane are all compared, shifts (S, 2) in
    A, and how far likelihoods are trusted."""

    rings: int
    frames: torch.Tensor
    shifts_a: torch.Tensor
    trust: float


@dataclass(frozen=True, eq=False, slots=True)
class Models:
    """Where a start is: K cubes, the share (K,) of the views that each explains, and the evidence, the mean log of the views'
    likelihoods in the latest step, relative to empty images; once they are judged also where the judges stand."""

    maps: tuple[torch.Tensor, ...]
    share: np.ndarray
    evidence: float = -np.inf
    standing: Standing | None = None


def searched_maps(engine: Engine, views: Views, settings: ModelSettings, name: str) -> list[Models]:
    """The likelier part of the random starts over views, called `name`, after all steps."""
    chosen = max(1, round(CHOSEN * settings.starts))
    engine.reporter.stage(f"random starts over {name}", settings.starts + chosen, "starts")
    begun = engine.compute.map(lambda number: started(engine, views, settings, number), range(settings.starts),
                               lambda number: engine.reporter.advance(1))
    order = sorted(range(settings.starts), key=lambda number: begun[number].evidence, reverse=True)[:chosen]
    return engine.compute.map(lambda number: ended(engine, begun[number], views, number), order,
                              lambda number: engine.reporter.advance(1))


def started(engine: Engine, views: Views, settings: ModelSettings, number: int) -> Models:
    """The maps of random start `number` after the first half of its steps."""
    generator = np.random.default_rng([engine.settings.compute.seed, 4, number])
    plan = schedule(views, STEPS)[:STEPS // 2]
    return followed(engine, random_start(engine, views, settings.count, plan[0][0], generator), views, plan, False, generator)


def ended(engine: Engine, begun: Models, views: Views, number: int) -> Models:
    """The maps of start `number` after the second half of its steps."""
    generator = np.random.default_rng([engine.settings.compute.seed, 5, number])
    return followed(engine, begun, views, schedule(views, STEPS)[STEPS // 2:], True, generator)


def schedule(views: Views, steps: int) -> list[tuple[int, float]]:
    """Rings and trust of each step."""
    last = views.band.last_shell
    rings = np.geomspace(last / COARSER, last, steps).round().astype(int)
    return [(int(finest), float(trust)) for finest, trust in zip(rings, np.geomspace(*views.trust, steps))]


def judged(engine: Engine, trials: list[Models], fitted: Views, judges: Views) -> list[Models]:
    """The maps of all trials, the likeliest first by particles `judges`; the first few after steps over particles `fitted`,
    where these made them likelier."""
    found = by_evidence([seen_by(engine, models, judges) for models in trials])
    few = range(min(LIKELIEST, len(found)))
    engine.reporter.stage("likeliest maps over particles", len(few), "maps")
    renewed = engine.compute.map(lambda place: over_particles(engine, found[place], fitted, judges, place), few,
                                 lambda place: engine.reporter.advance(1))
    return by_evidence([*renewed, *found[len(few):]])


def by_evidence(trials: list[Models]) -> list[Models]:
    return sorted(trials, key=lambda models: models.evidence, reverse=True)


def over_particles(engine: Engine, models: Models, fitted: Views, judges: Views, number: int) -> Models:
    """The models after steps over single particles, or as they were where the judges like that better."""
    generator = np.random.default_rng([engine.settings.compute.seed, 6, number])
    after = followed(engine, models, fitted, schedule(fitted, PARTICLE_STEPS), True, generator)
    return by_evidence([models, seen_by(engine, after, judges)])[0]


def seen_by(engine: Engine, models: Models, judges: Views) -> Models:
    """The same maps with their evidence for views that they were not made of, and where these stand."""
    generator = np.random.default_rng([engine.settings.compute.seed, 7])  # one grid for all
    step = plan_step(engine, judges.band.last_shell, judges.trust[1], True, generator)
    batch = judges.batch(step.rings)
    evidence = shared_out(engine, batch, templates_of(models, step, batch.band), step).evidence
    return replace(models, evidence=float(evidence.mean()) / step.trust, standing=standing(engine, models, judges, step))


def agreements(engine: Engine, trials: list[Models]) -> tuple[float, ...]:
    """How far each start agrees with the first of them on where particles stand."""
    band, found = engine.spectra.band, [models.standing for models in trials if models.standing is not None]
    within = SAME_STEPS * angular_step(engine, band.box_a / band.last_shell)
    return (1.0, *(agreement(found[0], other, engine.operators, within) for other in found[1:]))


def standing(engine: Engine, models: Models, views: Views, step: Step) -> Standing:
    """The likeliest map and orientation of every view, on the grid of a step."""
    batch = views.batch(step.rings)
    templates = templates_of(models, step, batch.band)

    def of_part(part: np.ndarray) -> Placings:
        few = batch.take(torch.from_numpy(part).to(engine.device))
        return best_turns(few, torch.full_like(few.ctf, 1 / step.trust), templates, 1)

    size = score_bytes(templates, step, batch.band)
    best = Placings.joined([of_part(part) for part in engine.compute.batches(batch.rows, size)])
    place, psi = best.class_id[:, 0].cpu().numpy(), best.psi_rad[:, 0].double().cpu().numpy()
    frames = step.frames.double().cpu().numpy()[place % len(step.frames)]
    return Standing(place // len(step.frames), frames @ euler_to_matrix(0.0, 0.0, psi))


def random_start(engine: Engine, views: Views, count: int, rings: int, generator: np.random.Generator) -> Models:
    """Each map from some views of its own, at random orientations."""
    size = max(1, round(BEGINNING * len(views) / count))
    order, maps = generator.permutation(len(views)), []
    for number in range(count):
        batch = views.take(order[number * size:(number + 1) * size]).batch(rings)
        frames = torch.from_numpy(random_rotations(len(batch.rows), generator)).float().to(engine.device)
        maps.append(map_of(engine, batch.images * batch.ctf, batch.ctf ** 2, frames, batch.band))
    return Models(tuple(maps), np.full(count, 1 / count))


def followed(engine: Engine, models: Models, views: Views, plan: list[tuple[int, float]], moving: bool,
             generator: np.random.Generator) -> Models:
    """The maps after the steps of a plan: (rings, trust) of each."""
    for rings, trust in plan:
        models = stepped(engine, models, views, plan_step(engine, rings, trust, moving, generator))
    return models


def map_of(engine: Engine, numerator: torch.Tensor, weight: torch.Tensor, frames: torch.Tensor, band: Band) -> torch.Tensor:
    """The map of sums (G, L) on the rings of `band` that stand at frames (G, 3, 3)."""
    area = cell_area(band)
    turns, inserted = turns_of_axes(engine.operators)
    sums = empty_sums(band.last_shell, frames.device)
    for operator in torch.from_numpy(inserted).float().to(frames.device):
        insert_slices(sums, numerator * area, weight * area, operator @ frames, band.wave_px)
    return solved(engine, finished(sums, 1.0, turns), band.last_shell)


def solved(engine: Engine, sums: Accumulator, last_shell: int) -> torch.Tensor:
    """The map of sums, low-passed at `last_shell`, without what lies outside the particle and without negative density."""
    band = engine.spectra.band
    ratio = np.where(np.arange(band.box_px // 2 + 1) <= last_shell, SIGNAL_TO_NOISE, 0.0)
    voxels = solve(sums, band.box_px, ratio)
    voxels = filter_shells(voxels, low_pass_gain(band.box_px, band.pixel_size_a, band.box_a / last_shell))
    return masked_reference(voxels, sphere_mask(band.box_px, radius_px(engine))).clamp(min=0)


def plan_step(engine: Engine, rings: int, trust: float, moving: bool, generator: np.random.Generator) -> Step:
    """The grid for so many rings; turned as a whole by chance, so that no map settles on its points."""
    finest_a = engine.spectra.band.box_a / rings
    frames = rotations_from_directions(direction_grid(angular_step(engine, finest_a)))
    frames = random_rotations(1, generator)[0] @ frames
    frames = frames[in_asymmetric_unit(frames[:, :, 2], engine.operators)]
    shifts = shift_grid(finest_a / 2, finest_a / 2)[:5 if moving else 1]  # averages stand near the middle
    frames_there, shifts_there = (torch.from_numpy(grid).float().to(engine.device) for grid in (frames, shifts))
    return Step(rings, frames_there, shifts_there, trust)


def angular_step(engine: Engine, finest_a: float) -> float:
    """The angle in radians over which a map changes at a resolution."""
    return float(np.arcsin(min(0.7, finest_a / engine.settings.preprocess.diameter)))


def stepped(engine: Engine, models: Models, views: Views, step: Step) -> Models:
    """The maps after all views have been shared out over the grid and summed."""
    batch = views.batch(step.rings)
    found = shared_out(engine, batch, templates_of(models, step, batch.band), step)
    sums = [values.unflatten(0, (len(models.maps), -1)) for values in (rings_of(found.numerator), real_rings_of(found.weight))]
    maps = tuple(map_of(engine, numerator, weight, step.frames, batch.band) for numerator, weight in zip(*sums))
    held = found.occupancy.view(len(maps), -1).sum(1).double().cpu().numpy() / len(views)
    share = (1 - SMOOTHING) * held + SMOOTHING / len(maps)
    return Models(maps, share, float(found.evidence.mean()) / step.trust)


def templates_of(models: Models, step: Step, band: Band) -> Templates:
    """Slices of every map at every frame of the grid, map by map."""
    volumes = [fourier_volume(voxels, step.rings) for voxels in models.maps]
    slices = torch.cat([extract_slices(volume, step.frames, band.wave_px) for volume in volumes])
    log_prior = torch.from_numpy(np.log(models.share / len(step.frames))).float().to(slices.device)
    flat = step.shifts_a.new_full((len(step.shifts_a),), -np.log(len(step.shifts_a)))
    return Templates(slices, log_prior.repeat_interleave(len(step.frames)), step.shifts_a, flat)


def shared_out(engine: Engine, batch: ParticleBatch, templates: Templates, step: Step) -> TurnSums:
    """Posteriors of all views, their likelihoods as far as they are trusted, and the sums of every slice."""
    size = score_bytes(templates, step, batch.band)

    def of_part(part: np.ndarray) -> TurnSums:
        few = batch.take(torch.from_numpy(part).to(engine.device))
        return soft_turns(few, torch.full_like(few.ctf, 1 / step.trust), templates)

    return reduce(add, (of_part(part) for part in engine.compute.batches(batch.rows, size)))


def score_bytes(templates: Templates, step: Step, band: Band) -> int:
    """Working memory of one view."""
    return len(templates) * len(step.shifts_a) * ring_angles(band) * SCORE_BYTES
