"""Starting maps from particles alone: classes in the plane, maps of these classes from many random starts, then all particles.

A particle at low resolution hardly tells its orientation, and maps that start from nothing settle on whatever the noise
suggests. The sums of a class of some forty particles (engine/views.py) tell it well, and there are few of them: expectation
maximisation over all their orientations, with likelihoods that are trusted more from step to step while the resolution rises,
takes seconds, so that it can be begun many times, and the start that explains the classes best goes on. (Class averages as
the data of initial models: Elmlund et al. 2013; Tang et al. 2007.) All particles are then aligned to the map, and make the
next one. Maps are kept in a box just large enough for the finest resolution, whatever the box of the particles.

Projections do not tell a map from its mirror image: the hand of the result is one of two by chance.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
import torch

from swiftres_plugin.engine.agreement import Standing, agreement
from swiftres_plugin.engine.align import align_classes, reconstruct_half, residual_noise
from swiftres_plugin.engine.class_search import find_classes
from swiftres_plugin.engine.coarse import radius_px
from swiftres_plugin.engine.data.maps import Accumulator, Map
from swiftres_plugin.engine.data.search import Assignment, Band
from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.data.state import IterationPlan
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.maths.fourier import filter_shells, low_pass_gain, resample_cube
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
from swiftres_plugin.engine.views import Views, class_views, particle_diameter
from swiftres_plugin.settings import ClassSettings, ModelSettings

RINGS_OF_BOX = 16  # finest resolution where none is asked for: a sixteenth of the box, an eighth to a tenth of most particles
CLASSES = (20, 10, 50)  # particles a class; fewest and most classes
COARSER = 1.6  # the first step's resolution, in units of the last one's
STEPS = 20  # of a start; in the first half classes stand where their averages are centred,
CHOSEN = 1 / 3  # and then this part of the starts goes on
TRUST = (1 / 40, 1 / 4)  # of the classes' log-likelihoods at the first and the last step: a class does not quite show one view
BEGINNING = 1 / 3  # of the classes, at random orientations, make the first map of a start
SIGNAL_TO_NOISE = 4.0  # of the sums, assumed on every shell in use
SMOOTHING = 0.1  # of the maps' shares, towards equal ones: keeps small classes alive
ROUNDS = 2  # of all particles
SAME_STEPS = 2.0  # of the last grid: classes that stand no farther apart stand alike
SAME_START = 0.5  # of the classes stand alike beyond chance: a start came to the same maps
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
    """Where a start is: K cubes, the share (K,) of the classes that each explains, and the evidence, the mean log of the
    classes' likelihoods in the latest step, relative to empty images; in the end also where every class stands."""

    maps: tuple[torch.Tensor, ...]
    share: np.ndarray
    evidence: float = -np.inf
    standing: Standing | None = None


@dataclass(frozen=True, eq=False, slots=True)
class InitialModels:
    """What was found: K maps in the particles' box, the particles' poses and classes; of every start that took all steps, the
    one with the highest evidence first, its evidence and how far it agrees with the first; and the resolution of the maps."""

    maps: tuple[Map, ...]
    assignment: Assignment
    evidence: tuple[float, ...]
    agreement: tuple[float, ...]
    resolution_a: float

    @property
    def agreeing(self) -> int:
        """How many of these starts came to the same maps, the first among them."""
        return sum(share >= SAME_START for share in self.agreement)


def finest_resolution(settings: ModelSettings, box_a: float) -> float:
    """The resolution in angstroms at which the search ends."""
    return settings.finest_resolution or box_a / RINGS_OF_BOX


def class_settings(settings: ModelSettings, band: Band, particles: int) -> ClassSettings:
    """How the particles of `band` are classified."""
    each, fewest, most = CLASSES
    finest = band.box_a / band.last_shell
    return ClassSettings(
        classes=settings.classes or int(np.clip(particles // each, fewest, most)), steps=settings.steps,
        coarsest_resolution=2 * finest, search_resolution=finest, finest_resolution=finest, max_offset=settings.max_offset)


def find_models(engine: Engine, settings: ModelSettings, box_px: int) -> InitialModels:
    """Maps of the particles of `engine.spectra` (from `coarse_spectra`), written out in a box of `box_px`."""
    band = engine.spectra.band
    chosen = class_settings(settings, band, len(engine.spectra))
    search = find_classes(engine, chosen)
    views = class_views(engine, search, chosen)
    engine = with_diameter(engine, particle_diameter(search, views.band))
    trials = sorted(searched_maps(engine, views, settings), key=lambda models: models.evidence, reverse=True)
    maps, assignment = of_particles(engine, trials[0].maps, search.noise, settings)
    return InitialModels(tuple(in_box(engine, voxels, box_px) for voxels in maps), assignment,
                         tuple(one.evidence for one in trials), agreements(engine, trials), band.box_a / band.last_shell)


def with_diameter(engine: Engine, shown_a: float) -> Engine:
    """The engine with the particle's diameter in its settings: what the user said, or else what the averages show."""
    preprocess = engine.settings.preprocess
    if preprocess.diameter:
        return engine
    return replace(engine, settings=replace(engine.settings, preprocess=replace(preprocess, diameter=shown_a)))


def searched_maps(engine: Engine, views: Views, settings: ModelSettings) -> list[Models]:
    """The likelier part of the random starts after all steps."""
    chosen = max(1, round(CHOSEN * settings.starts))
    engine.reporter.stage("finding a map", settings.starts + chosen, "starts")
    begun = engine.compute.map(lambda number: started(engine, views, settings, number), range(settings.starts),
                               lambda number: engine.reporter.advance(1))
    order = sorted(range(settings.starts), key=lambda number: begun[number].evidence, reverse=True)[:chosen]
    return engine.compute.map(lambda number: ended(engine, begun[number], views, settings, number), order,
                              lambda number: engine.reporter.advance(1))


def started(engine: Engine, views: Views, settings: ModelSettings, number: int) -> Models:
    """The maps of random start `number` after the first half of its steps."""
    generator = np.random.default_rng([engine.settings.compute.seed, 4, number])
    models = random_start(engine, views, settings.count, round(views.band.last_shell / COARSER), generator)
    return followed(engine, models, views, settings, number, 0)


def followed(engine: Engine, models: Models, views: Views, settings: ModelSettings, number: int, half: int) -> Models:
    """The maps of start `number` after another half (0 or 1) of the steps."""
    generator = np.random.default_rng([engine.settings.compute.seed, 5, number, half])
    last = views.band.last_shell
    rings, trust = np.geomspace(last / COARSER, last, STEPS).round().astype(int), np.geomspace(*TRUST, STEPS)
    for place in range(half * STEPS // 2, (half + 1) * STEPS // 2):
        step = plan_step(engine, int(rings[place]), float(trust[place]), half == 1, generator)
        models = stepped(engine, models, views, step)
    return models


def ended(engine: Engine, begun: Models, views: Views, settings: ModelSettings, number: int) -> Models:
    """The maps of start `number` after the second half of its steps, and where every class stands against them."""
    models = followed(engine, begun, views, settings, number, 1)
    generator = np.random.default_rng([engine.settings.compute.seed, 6, number])
    step = plan_step(engine, views.band.last_shell, TRUST[1], True, generator)
    return replace(models, standing=standing(engine, models, views, step))


def standing(engine: Engine, models: Models, views: Views, step: Step) -> Standing:
    """The likeliest map and orientation of every class, on the grid of a step."""
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


def agreements(engine: Engine, trials: list[Models]) -> tuple[float, ...]:
    """How far each start agrees with the first of them on where the classes stand."""
    band, found = engine.spectra.band, [models.standing for models in trials if models.standing is not None]
    within = SAME_STEPS * angular_step(engine, band.box_a / band.last_shell)
    return (1.0, *(agreement(found[0], other, engine.operators, within) for other in found[1:]))


def random_start(engine: Engine, views: Views, count: int, rings: int, generator: np.random.Generator) -> Models:
    """Each map from some classes of its own, at random orientations."""
    size = max(1, round(BEGINNING * len(views) / count))
    order, maps = generator.permutation(len(views)), []
    for number in range(count):
        batch = views.take(order[number * size:(number + 1) * size]).batch(rings)
        frames = torch.from_numpy(random_rotations(len(batch.rows), generator)).float().to(engine.device)
        maps.append(map_of(engine, batch.images * batch.ctf, batch.ctf ** 2, frames, batch.band))
    return Models(tuple(maps), np.full(count, 1 / count))


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
    """The maps after all classes have been shared out over the grid and summed."""
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
    """Posteriors of all classes, their likelihoods as far as they are trusted, and the sums of every slice."""
    size = score_bytes(templates, step, batch.band)

    def of_part(part: np.ndarray) -> TurnSums:
        few = batch.take(torch.from_numpy(part).to(engine.device))
        return soft_turns(few, torch.full_like(few.ctf, 1 / step.trust), templates)

    return reduce(add, (of_part(part) for part in engine.compute.batches(batch.rows, size)))


def score_bytes(templates: Templates, step: Step, band: Band) -> int:
    """Working memory of one class."""
    return len(templates) * len(step.shifts_a) * ring_angles(band) * SCORE_BYTES


def of_particles(engine: Engine, maps: tuple[torch.Tensor, ...], noise: np.ndarray,
                 settings: ModelSettings) -> tuple[tuple[torch.Tensor, ...], Assignment]:
    """Maps of all particles, each aligned to the maps of the round before, and where they stand against the last ones."""
    rows, diameter_a = np.arange(len(engine.spectra)), engine.settings.preprocess.diameter
    for number in range(1, ROUNDS + 1):
        plan, name = plan_alignment(engine, settings, number), f"round {number} of {ROUNDS}"
        poses = align_classes(engine, maps, noise, rows, plan, None, diameter_a, name)
        noise = residual_noise(engine, maps, rows, poses)
        maps = tuple(of_members(engine, voxels, noise, poses, place, name) for place, voxels in enumerate(maps))
    return maps, poses


def of_members(engine: Engine, voxels: torch.Tensor, noise: np.ndarray, poses: Assignment, number: int,
               name: str) -> torch.Tensor:
    """Map `number`, so far `voxels`, of the particles that belong to it, at poses drawn from their posteriors."""
    members = np.flatnonzero(poses.class_id == number)
    if not len(members):
        return voxels
    sums = reconstruct_half(engine, noise, members, poses.take(members), f"{name}, map {number + 1}")
    return solved(engine, sums, engine.spectra.band.last_shell)


def plan_alignment(engine: Engine, settings: ModelSettings, number: int) -> IterationPlan:
    """A search of all orientations up to the finest resolution, about the middle of the images."""
    band = engine.spectra.band
    finest_a = band.box_a / band.last_shell
    return IterationPlan(number, band.last_shell, True, band.last_shell, angular_step(engine, finest_a), finest_a / 2,
                         settings.max_offset or 0.15 * band.box_a)


def in_box(engine: Engine, voxels: torch.Tensor, box_px: int) -> Map:
    """A map on the particles' grid and grey scale: slices are transforms divided by the box (docs/conventions.md)."""
    small = engine.spectra.band
    scale = (small.box_px / box_px) ** 2
    return Map(scale * resample_cube(voxels, box_px).cpu().numpy(), small.box_a / box_px)
