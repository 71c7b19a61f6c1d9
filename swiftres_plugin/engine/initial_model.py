"""Starting maps from particles alone: classes in the plane, maps of these classes from many random starts, then all particles.

A particle at low resolution hardly tells its orientation, and maps that start from nothing settle on whatever the noise
suggests. The sums of a class of some forty particles (engine/views.py) tell it well, and there are few of them: expectation
maximisation over all their orientations (engine/starts.py), with likelihoods that are trusted more from step to step while the
resolution rises, takes seconds, so that it can be begun many times. (Class averages as the data of initial models: Elmlund et
al. 2013; Tang et al. 2007.) The likeliest maps go on over some single particles, and the one that others like best is the map:
all particles are aligned to it and make the next. Maps are kept in a box just large enough for the finest resolution.

Projections do not tell a map from its mirror image: the hand of the result is one of two by chance.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from swiftres_plugin.engine.align import align_classes, residual_noise
from swiftres_plugin.engine.class_averages import searched
from swiftres_plugin.engine.class_search import find_classes
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.search import Assignment, Band
from swiftres_plugin.engine.data.state import IterationPlan
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.insertion import reconstruct_half
from swiftres_plugin.engine.maths.fourier import resample_cube
from swiftres_plugin.engine.starts import agreements, angular_step, judged, searched_maps, solved
from swiftres_plugin.engine.views import class_views, particle_diameter, particle_views
from swiftres_plugin.settings import ClassSettings, ModelSettings

RINGS_OF_BOX = 16  # finest resolution where none is asked for: a sixteenth of the box, an eighth to a tenth of most particles
CLASSES = (20, 10, 50)  # particles a class; fewest and most classes
FITTED, JUDGES = 300, 200  # single particles that maps go on over, and others that judge them
SHARE_FITTED = 0.6  # where there are fewer
OVER_PARTICLES = 0.3  # as many starts as over classes: large particles tell orientations alone, and their classes mix views
ROUNDS = 2  # of all particles
SAME_START = 0.5  # of the judges stand alike beyond chance: a start came to the same maps


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
    places = searched(engine, search, chosen)
    views = class_views(engine, search, places, chosen)
    engine = with_diameter(engine, particle_diameter(search, views.band))
    fitted, judges = (particle_views(engine, search, places, chosen, rows) for rows in two_samples(engine))
    few = replace(settings, starts=max(1, round(OVER_PARTICLES * settings.starts)))
    trials = [*searched_maps(engine, views, settings, "classes"), *searched_maps(engine, fitted, few, "particles")]
    trials = judged(engine, trials, fitted, judges)
    maps, assignment = of_particles(engine, trials[0].maps, search.noise, settings)
    return InitialModels(tuple(in_box(engine, voxels, box_px) for voxels in maps), assignment,
                         tuple(one.evidence for one in trials), agreements(engine, trials), band.box_a / band.last_shell)


def two_samples(engine: Engine) -> tuple[np.ndarray, np.ndarray]:
    """Rows of particles to fit and of others to judge by, drawn by chance."""
    order = np.random.default_rng([engine.settings.compute.seed, 8]).permutation(len(engine.spectra))
    fitted = min(FITTED, round(SHARE_FITTED * len(order)))
    return np.sort(order[:fitted]), np.sort(order[fitted:fitted + JUDGES])


def with_diameter(engine: Engine, shown_a: float) -> Engine:
    """The engine with the particle's diameter in its settings: what the user said, or else what the averages show."""
    preprocess = engine.settings.preprocess
    if preprocess.diameter:
        return engine
    return replace(engine, settings=replace(engine.settings, preprocess=replace(preprocess, diameter=shown_a)))


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
