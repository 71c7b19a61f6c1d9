"""Starting maps from particles alone: stochastic expectation maximisation from random poses, coarse resolution first.

Each step takes other particles, gives every one its posterior over a whole grid of poses (stages/soft.py), and lets their
sums fade into those of the steps before: U <- (1 - d) U + d U_step. The small sample makes the first maps differ from a
ball, the fading forgets them, and the coarse start leaves few wrong maps to be caught in (Punjani et al. 2017; Elmlund et
al. 2013). Maps are kept in a box just large enough for the finest resolution, whatever the box of the particles.

Projections do not tell a map from its mirror image: the hand of the result is one of two by chance.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
import torch

from swiftres_plugin.engine.align import INSERT_BYTES, image_noise
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.search import Assignment, Band
from swiftres_plugin.engine.data.spectra import Spectra
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.maths.fourier import filter_shells, low_pass_gain, resample_cube
from swiftres_plugin.engine.maths.geometry import random_rotations, shift_grid, so3_grid
from swiftres_plugin.engine.maths.slices import empty_sums, extract_slices, fourier_volume, insert_slices
from swiftres_plugin.engine.maths.symmetry import in_asymmetric_unit
from swiftres_plugin.engine.stages import local
from swiftres_plugin.engine.stages.noise import per_sample, shell_means
from swiftres_plugin.engine.stages.postprocess import masked_reference, particle_diameter_px, sphere_mask
from swiftres_plugin.engine.stages.reconstruct import finished, insert, solve
from swiftres_plugin.engine.stages.soft import References, SoftSums, soft_sums
from swiftres_plugin.settings import ModelSettings

FADING = 0.15  # part of the sums that a step replaces
COARSE_STEPS, FINE_STEPS = 0.4, 0.9  # shares of the steps at which the resolution begins and ends to rise
JUDGED_STEPS = 5  # by which the random starts are compared
SIGNAL_TO_NOISE = 4.0  # of the sums, assumed on every shell in use
SMOOTHING = 0.1  # of the classes' shares, towards equal ones: keeps small classes alive
LEAST_BOX_PX = 32
SCORE_BYTES = 16  # working memory per score
UNKNOWN_DIAMETER = 0.7  # of the box, until there is a map to measure


@dataclass(frozen=True, eq=False, slots=True)
class Step:
    """The grid of one step: finest shell compared, orientations (G, 3, 3), shifts (S, 2) in A."""

    last_shell: int
    rotations: torch.Tensor
    shifts_a: torch.Tensor


@dataclass(frozen=True, eq=False, slots=True)
class Models:
    """Where the search for K maps stands.

    sums: (K, 3, ...) of the reconstructions, faded; maps: K cubes; noise: (groups, S); share: (K,) of the particles;
    evidence: mean log of the particles' likelihoods at each step so far, relative to empty images.
    """

    sums: torch.Tensor
    maps: tuple[torch.Tensor, ...]
    noise: np.ndarray
    share: np.ndarray
    evidence: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class InitialModels:
    """What was found: K maps in the particles' box, the particles' poses and classes, evidence of every step."""

    maps: tuple[Map, ...]
    assignment: Assignment
    evidence: tuple[float, ...]


def coarse_spectra(spectra: Spectra, resolution_a: float) -> Spectra:
    """The particles as images of a smaller box, of the same width in angstroms, that holds `resolution_a`."""
    band = spectra.band.up_to(spectra.band.shell_of(resolution_a))
    box_px = min(spectra.band.box_px, max(LEAST_BOX_PX, 2 * (band.last_shell + 4)))
    small = Band(box_px, band.box_a / box_px, band.wave_px, band.shell)
    return Spectra(spectra.values[:, :len(small)], small, spectra.particles)


def find_models(engine: Engine, settings: ModelSettings, box_px: int) -> InitialModels:
    """Maps of the particles of `engine.spectra` (from `coarse_spectra`), written out in a box of `box_px`."""
    coarse = round(COARSE_STEPS * settings.steps)
    engine.reporter.stage("finding a map", settings.starts * coarse + settings.steps - coarse, "steps")
    trials = []
    for trial in range(settings.starts):
        generator = np.random.default_rng([engine.settings.compute.seed, 4, trial])
        trials.append(followed(engine, random_start(engine, settings, generator), settings, range(coarse), generator))
    models = max(trials, key=likeness)
    models = followed(engine, models, settings, range(coarse, settings.steps), generator)
    return concluded(engine, models, plan_step(engine, models, settings, 1.0, generator), box_px)


def likeness(models: Models) -> float:
    """How well maps explain the particles: the mean evidence of the latest steps."""
    return float(np.mean(models.evidence[-JUDGED_STEPS:]))


def followed(engine: Engine, models: Models, settings: ModelSettings, numbers: range,
             generator: np.random.Generator) -> Models:
    """The models after the steps of these numbers."""
    for number, rows in zip(numbers, samples(len(engine.spectra), settings.batch, generator)):
        models = stepped(engine, models, plan_step(engine, models, settings, number / settings.steps, generator), rows)
        engine.reporter.advance(1)
    return models


def samples(count: int, batch: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows of one step after another, ascending: all particles in a random order, then all in another, without end."""
    size = min(batch, count)
    waiting = np.empty(0, dtype=np.int64)
    while True:
        if len(waiting) < size:
            waiting = generator.permutation(count)
        yield np.sort(waiting[:size])
        waiting = waiting[size:]


def random_start(engine: Engine, settings: ModelSettings, generator: np.random.Generator) -> Models:
    """Each map from a few particles of its own, at random poses."""
    noise = image_noise(engine, np.arange(len(engine.spectra)))
    last_shell = engine.spectra.band.shell_of(settings.coarsest_resolution)
    band = engine.spectra.band.up_to(last_shell).to(engine.device)
    operators = torch.from_numpy(engine.operators).float().to(engine.device)
    order, sums = generator.permutation(len(engine.spectra)), []
    for rows in np.array_split(order[:settings.batch * settings.count], settings.count):
        batch = engine.batch(np.sort(rows), band)
        rotation = torch.from_numpy(random_rotations(len(rows), generator)).float().to(engine.device)
        sums.append(empty_sums(engine.spectra.band.last_shell, engine.device))
        insert(sums[-1], batch, per_sample(noise, batch), rotation, rotation.new_zeros(len(rows), 2), operators)
        sums[-1] *= len(engine.spectra) / len(rows)
    maps = tuple(map_of(engine, one, last_shell) for one in sums)
    return Models(torch.stack(sums), maps, noise, np.full(settings.count, 1 / settings.count))


def map_of(engine: Engine, sums: torch.Tensor, last_shell: int) -> torch.Tensor:
    """The map of sums up to `last_shell`, low-passed there, without what lies outside the particle."""
    band = engine.spectra.band
    ratio = np.where(np.arange(band.box_px // 2 + 1) <= last_shell, SIGNAL_TO_NOISE, 0.0)
    voxels = solve(finished(sums.clone(), 1.0), band.box_px, ratio)
    voxels = filter_shells(voxels, low_pass_gain(band.box_px, band.pixel_size_a, band.box_a / last_shell))
    return masked_reference(voxels, sphere_mask(band.box_px, radius_px(engine)))


def radius_px(engine: Engine) -> float:
    """Radius of the sphere that holds the particle, with some room."""
    box_px, diameter_a = engine.spectra.band.box_px, engine.settings.preprocess.diameter
    largest = 0.46 * box_px
    return min(largest, 0.55 * diameter_a / engine.spectra.band.pixel_size_a + 1) if diameter_a else largest


def plan_step(engine: Engine, models: Models, settings: ModelSettings, progress: float,
              generator: np.random.Generator) -> Step:
    """The grid for a share `progress` of the steps; turned as a whole by chance, so that no map settles on its points."""
    band = engine.spectra.band
    rising = np.clip((progress - COARSE_STEPS) / (FINE_STEPS - COARSE_STEPS), 0, 1)
    first, last = band.shell_of(settings.coarsest_resolution), band.shell_of(settings.finest_resolution)
    shell = round(first * (last / first) ** rising)
    finest_a = band.box_a / shell
    angle = float(np.arcsin(min(0.7, finest_a / diameter(engine, models))))
    rotations = so3_grid(angle)
    rotations = rotations[in_asymmetric_unit(rotations[:, :, 2], engine.operators)] @ random_rotations(1, generator)
    shifts = shift_grid(widest_shift(engine, settings), finest_a / 2)
    return Step(shell, *(torch.from_numpy(grid).float().to(engine.device) for grid in (rotations, shifts)))


def diameter(engine: Engine, models: Models) -> float:
    """The particle's diameter in angstroms: what the user said, or what the widest map shows once it has a shape."""
    band = engine.spectra.band
    if engine.settings.preprocess.diameter:
        return engine.settings.preprocess.diameter
    if len(models.evidence) < 5:
        return UNKNOWN_DIAMETER * band.box_a
    return max(particle_diameter_px(voxels.cpu().numpy()) for voxels in models.maps) * band.pixel_size_a


def widest_shift(engine: Engine, settings: ModelSettings) -> float:
    return settings.max_offset or 0.1 * engine.spectra.band.box_a


def stepped(engine: Engine, models: Models, step: Step, rows: np.ndarray) -> Models:
    """The models after the particles at `rows` have been shared out over the grid and summed."""
    references = references_of(engine, models, step)
    found = shared_out(engine, models.noise, references, step, rows)
    fading = FADING if models.evidence else 1.0
    fresh = len(engine.spectra) / len(rows) * summed(engine, found, step, len(models.maps))
    sums = (1 - fading) * models.sums + fading * fresh
    maps = tuple(map_of(engine, one, step.last_shell) for one in sums)
    counts = found.occupancy.view(len(maps), -1).sum(1).double().cpu().numpy()
    share = (1 - FADING) * models.share + FADING * ((1 - SMOOTHING) * counts / len(rows) + SMOOTHING / len(maps))
    noise = renewed_noise(engine, models.noise, found.unexplained(references), step.last_shell)
    return Models(sums, maps, noise, share, (*models.evidence, float(found.evidence.mean())))


def references_of(engine: Engine, models: Models, step: Step) -> References:
    """Slices of every map at every orientation of the grid, map by map."""
    wave = engine.spectra.band.up_to(step.last_shell).wave_px.to(engine.device)
    slices = torch.cat([extract_slices(fourier_volume(voxels, step.last_shell).to(engine.device), step.rotations, wave)
                        for voxels in models.maps])
    share = torch.from_numpy(models.share).float().to(engine.device)
    log_prior = (share / len(step.rotations)).log().repeat_interleave(len(step.rotations))
    width_a = float(step.shifts_a.norm(dim=1).max()) / 2
    shift_log_prior = torch.log_softmax(-(step.shifts_a ** 2).sum(1) / (2 * max(width_a, 1e-6) ** 2), 0)
    return References(slices, log_prior, step.shifts_a, shift_log_prior)


def shared_out(engine: Engine, noise: np.ndarray, references: References, step: Step, rows: np.ndarray) -> SoftSums:
    """Posteriors and sums of the particles at `rows`, every worker for a share of them."""
    band = engine.spectra.band.up_to(step.last_shell).to(engine.device)
    scores = len(references) * len(step.shifts_a)

    def of_part(rows: np.ndarray) -> SoftSums:
        batch = engine.batch(rows, band)
        return soft_sums(batch, per_sample(noise, batch), references)

    def of_share(share: np.ndarray) -> SoftSums:
        return reduce(add, (of_part(part) for part in engine.compute.batches(share, scores * SCORE_BYTES)))

    return reduce(add, engine.compute.map(of_share, engine.compute.shares(rows, 3 * references.slices.nbytes)))


def summed(engine: Engine, found: SoftSums, step: Step, count: int) -> torch.Tensor:
    """(K, 3, ...) sums of the K maps: what every reference gathered, inserted at its orientation and its mates."""
    wave = engine.spectra.band.up_to(step.last_shell).wave_px.to(engine.device)
    operators = torch.from_numpy(engine.operators).float().to(engine.device)
    visited = found.occupancy.view(count, -1) > 1e-3
    jobs = [(number, operator) for number in range(count) for operator in operators]

    def inserted(job: tuple[int, torch.Tensor]) -> torch.Tensor:
        number, operator = job
        places = torch.nonzero(visited[number])[:, 0]
        sums = empty_sums(engine.spectra.band.last_shell, engine.device)
        for part in engine.compute.batches(np.arange(len(places)), len(wave) * INSERT_BYTES):
            place = places[part[0]:part[-1] + 1]
            row = place + number * len(step.rotations)
            insert_slices(sums, found.numerator[row], found.weight[row], operator @ step.rotations[place], wave)
        return sums

    parts = torch.stack(engine.compute.map(inserted, jobs))
    return parts.view(count, len(operators), *parts.shape[1:]).sum(1)


def renewed_noise(engine: Engine, noise: np.ndarray, unexplained: torch.Tensor, last_shell: int) -> np.ndarray:
    """The noise faded towards what the maps leave of the particles, on the shells that were compared."""
    ratio = shell_means(unexplained[None], engine.spectra.band.up_to(last_shell))[0].clamp(min=0.1).cpu().numpy()
    renewed = noise.copy()
    renewed[:, :last_shell + 1] *= (1 - FADING) + FADING * ratio
    return renewed.astype(np.float32)


def concluded(engine: Engine, models: Models, step: Step, box_px: int) -> InitialModels:
    """Maps of all particles, in the particles' box, and each particle's likeliest pose, refined."""
    rows = np.arange(len(engine.spectra))
    engine.reporter.stage("all particles", len(rows))
    found = shared_out(engine, models.noise, references_of(engine, models, step), step, rows)
    sums = summed(engine, found, step, len(models.maps))
    maps = tuple(map_of(engine, one, step.last_shell) for one in sums)
    assignment = placed(engine, replace(models, maps=maps), step, found)
    engine.reporter.advance(len(rows))
    return InitialModels(tuple(in_box(engine, voxels, box_px) for voxels in maps), assignment,
                         (*models.evidence, float(found.evidence.mean())))


def placed(engine: Engine, models: Models, step: Step, found: SoftSums) -> Assignment:
    """Each particle's likeliest pose on the grid, refined against the map of its class."""
    class_id = (found.reference // len(step.rotations)).cpu().numpy()
    rotation, shift = step.rotations[found.reference % len(step.rotations)], step.shifts_a[found.shift]
    count = len(class_id)
    assignment = Assignment(
        np.tile(np.eye(3), (count, 1, 1)), np.zeros((count, 2)), np.zeros(count), found.share.double().cpu().numpy(),
        np.zeros((count, 5, 5)), class_id)
    for number, voxels in enumerate(models.maps):
        volume = fourier_volume(voxels, step.last_shell).to(engine.device)
        for part in engine.compute.batches(np.flatnonzero(class_id == number), 300 * len(engine.spectra.band)):
            put(assignment, part, polished(engine, models.noise, volume, step, part, rotation[part], shift[part]))
    return assignment


def polished(engine: Engine, noise: np.ndarray, volume: torch.Tensor, step: Step, rows: np.ndarray, rotation: torch.Tensor,
             shift_a: torch.Tensor) -> local.Fit:
    """The poses of `rows` after a few steps of continuous refinement, none far from the grid's pose."""
    band = engine.spectra.band.up_to(step.last_shell).to(engine.device)
    batch = engine.batch(rows, band)
    angle, move = local.resolution_steps(band, 0.5 * band.box_a)
    return local.polish(batch, per_sample(noise, batch), volume, rotation, shift_a, 4, 0.1 * angle, 0.1 * move, angle, move)


def put(assignment: Assignment, rows: np.ndarray, fit: local.Fit) -> None:
    """Write poses, scores and widths of a fit into the rows of an assignment."""
    assignment.image_to_volume[rows] = fit.rotation.double().cpu().numpy()
    assignment.shift_a[rows] = fit.shift_a.double().cpu().numpy()
    assignment.log_likelihood[rows] = fit.score.double().cpu().numpy()
    assignment.covariance[rows] = local.covariance(fit).cpu().numpy()


def in_box(engine: Engine, voxels: torch.Tensor, box_px: int) -> Map:
    """A map on the particles' grid and grey scale: slices are transforms divided by the box (docs/conventions.md)."""
    small = engine.spectra.band
    scale = (small.box_px / box_px) ** 2
    return Map(scale * resample_cube(voxels, box_px).cpu().numpy(), small.box_a / box_px)
