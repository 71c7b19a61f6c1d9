"""The global search of a map, made ready and asked; and how much of what there is to find it finds."""
from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np
import torch

from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.search import Band, Candidates, SteeredGallery
from swiftres_plugin.engine.data.spectra import Comparison, ParticleBatch
from swiftres_plugin.engine.data.state import IterationPlan, Recall
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.maths.fourier import RAMP_BYTES, ramps_back
from swiftres_plugin.engine.maths.geometry import (
    PoseGrid,
    direction_grid,
    in_plane_grid,
    perturbed,
    random_rotations,
    rotations_from_directions,
    shift_grid,
    so3_grid,
)
from swiftres_plugin.engine.maths.steering import find_steering
from swiftres_plugin.engine.maths.symmetry import in_asymmetric_unit
from swiftres_plugin.engine.stages.exhaustive import exhaustive_search, holds_best
from swiftres_plugin.engine.stages.gallery import build_gallery, find_basis, find_metric_basis
from swiftres_plugin.engine.stages.index import TRAINING, build_index, parse_recipe
from swiftres_plugin.engine.stages.noise import per_sample
from swiftres_plugin.engine.stages.search import IndexSearch
from swiftres_plugin.engine.stages.steered import Level, SteeredSearch
from swiftres_plugin.engine.stages.telling import separation, variance
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import SearchSettings

COMPARED = 200  # particles whose CTFs and noise decide how images are compared with references
BASIS_DIRECTIONS = 500  # directions, with all their turns, that components are found from
WIDEST_STEP_RAD = 0.17  # a search begins with no wider one: particles look alike from everywhere at so coarse a resolution
LOOKED_AT = 100  # orientations and particles that show how far apart orientations are
TELLING_BYTES = 50  # working memory of one of these particles for each of its coefficients
ENOUGH = 120.0  # log-likelihood that sets an orientation apart: twice what the best of a million others reaches by chance
NEARLY_ALL = 0.9  # of the log-likelihood there is: what is enough where there is less
MOST = 0.1  # all particles but this share should have enough
RECALL_SHARE = 0.03  # of the products of a search that measuring its recall may cost,
RECALL_LEAST = 2  # but for so few particles of a search of all of them
AnySearcher = TypeVar("AnySearcher", bound="Searcher")
Answer = TypeVar("Answer")


class Searcher(Protocol):
    """A search of one map that is ready to be asked."""

    @property
    def band(self) -> Band:
        """The coefficients that are compared in the end."""

    @property
    def shifts_a(self) -> torch.Tensor:
        """(S, 2) shifts of the finest grid,"""

    @property
    def angular_step_rad(self) -> float:
        """the spacing of its orientations,"""

    def orientations(self) -> torch.Tensor:
        """and these, (G, 3, 3)."""

    @property
    def description(self) -> str:
        """How it searches, in a few words."""

    @property
    def whole_processor(self) -> bool:
        """Whether it uses all cores of a processor for one batch."""

    @property
    def products(self) -> float:
        """Multiplications that a particle takes, about."""

    def to(self: AnySearcher, device: torch.device) -> AnySearcher:
        """The same on `device`."""

    def bytes_per_particle(self, count: int) -> int:
        """Working memory to search `count` candidates of a particle."""

    def search(self, batch: ParticleBatch, noise: torch.Tensor, centre_a: torch.Tensor, count: int) -> Candidates:
        """The `count` best distinct poses of each particle, with noise power (B, L); shifts count from `centre_a` (B, 2)."""


def prepare_search(engine: Engine, volume: torch.Tensor, noise: np.ndarray, rows: np.ndarray, plan: IterationPlan) -> Searcher:
    """The search of a Fourier volume on the plan's grid, for particles like those at `rows`."""
    make = steered_search if is_steered(engine.settings.search) else index_search
    return make(engine, volume, noise, rows, plan)


def is_steered(settings: SearchSettings) -> bool:
    """Whether a search goes from coarse to fine; else it asks one index of all references."""
    return settings.recipe == "auto" and settings.metric == "likelihood" and settings.components > 0


def telling_shell(engine: Engine, volume: torch.Tensor, noise: np.ndarray, rows: np.ndarray, last_shell: int) -> int:
    """The coarsest shell by which most particles like those at `rows` tell their orientation, up to `last_shell`."""
    least = separations(engine, volume, noise, rows, last_shell).quantile(MOST, dim=0)
    return int((least < min(ENOUGH, NEARLY_ALL * float(least[-1]))).sum())


def separations(engine: Engine, volume: torch.Tensor, noise: np.ndarray, rows: np.ndarray, last_shell: int) -> torch.Tensor:
    """(B, S) log-likelihood that sets the orientations of some of the particles at `rows` apart, by the shells up to each."""
    band = engine.spectra.band.up_to(last_shell).to(engine.device)
    turns = random_rotations(LOOKED_AT, np.random.default_rng([engine.settings.compute.seed, 6]))
    spread, parts = variance(volume, torch.from_numpy(turns).float().to(engine.device), band.wave_px), []
    for part in engine.compute.batches(evenly(rows, LOOKED_AT), len(band) * TELLING_BYTES):
        batch = engine.batch(part, band)
        parts.append(separation(batch, per_sample(noise, batch), spread))
    return torch.cat(parts)


def steered_search(engine: Engine, volume: torch.Tensor, noise: np.ndarray, rows: np.ndarray,
                   plan: IterationPlan) -> SteeredSearch:
    """From coarse to fine, down to the plan's grid."""
    step_rad = grid_step(engine, plan)
    doublings = coarser_levels(engine, step_rad)
    widest = 2 ** doublings
    frames = directions(engine, step_rad * widest, plan)
    shifts_a = shift_grid(plan.shift_range_a, plan.shift_step_a * widest)
    grids = [PoseGrid(frames, in_plane_grid(step_rad * widest, even=True), shifts_a, step_rad * widest,
                      plan.shift_step_a * widest)]
    for _ in range(doublings):
        grids.append(grids[-1].finer())
    shells = [max(1, plan.search_shell // 2 ** n) for n in range(doublings, -1, -1)]
    sample = engine.batch(evenly(rows, COMPARED), engine.spectra.band.up_to(plan.search_shell).to(engine.device))
    return SteeredSearch(tuple(make_level(engine, volume, noise, sample.up_to(shell), grid)
                               for shell, grid in zip(shells, grids)))


def coarser_levels(engine: Engine, step_rad: float) -> int:
    """How often the resolution is halved and the step doubled for a search to begin there."""
    widest = min(WIDEST_STEP_RAD, coarsest_step(len(engine.operators)))
    return max(0, int(np.log2(widest / step_rad)))


def directions(engine: Engine, step_rad: float, plan: IterationPlan) -> np.ndarray:
    """(G, 3, 3) orientations at psi = 0 of the asymmetric unit, perturbed where the plan says so."""
    beams = direction_grid(step_rad)
    return shaken(engine, rotations_from_directions(beams[in_asymmetric_unit(beams, engine.operators)]), step_rad, plan)


def shaken(engine: Engine, rotations: np.ndarray, step_rad: float, plan: IterationPlan) -> np.ndarray:
    """Rotations (N, 3, 3), perturbed by up to a quarter of a step where the plan says so."""
    if plan.gallery_seed is None:
        return rotations
    chance = np.random.default_rng([engine.settings.compute.seed, 5, plan.gallery_seed])
    return perturbed(rotations, step_rad / 4, chance)


def make_level(engine: Engine, volume: torch.Tensor, noise: np.ndarray, sample: ParticleBatch, grid: PoseGrid) -> Level:
    """References of a Fourier volume on a grid, on the band of `sample` and in components that suit particles like these."""
    strength = (sample.ctf ** 2 / per_sample(noise, sample)).mean(0)
    frames, psi_rad, shifts_a = (torch.from_numpy(values).float().to(engine.device)
                                 for values in (grid.frames, grid.psi_rad, grid.shifts_a))
    few = frames[:: max(1, len(frames) // BASIS_DIRECTIONS)]
    steering = find_steering(volume, few, sample.band, strength, max(1, engine.settings.search.components // 2))
    numbers, power = steering.of_references(volume, frames)
    gallery = SteeredGallery(frames, psi_rad, numbers, steering.order, power, grid.step_rad)
    return Level(steering, gallery, shifts_a, ramps_back(sample.band, shifts_a))


def index_search(engine: Engine, volume: torch.Tensor, noise: np.ndarray, rows: np.ndarray,
                 plan: IterationPlan) -> IndexSearch:
    """The plan's grid in one gallery, with the index that the settings name."""
    band, settings = engine.spectra.band.up_to(plan.search_shell).to(engine.device), engine.settings.search
    step_rad = grid_step(engine, plan)
    rotations = so3_grid(step_rad)
    rotations = shaken(engine, rotations[in_asymmetric_unit(rotations[:, :, 2], engine.operators)], step_rad, plan)
    recipe = parse_recipe(settings.recipe, settings.components)
    check_gallery(len(rotations), (recipe.components or 2 * len(band)) + plan.search_shell, engine.compute)
    sample = engine.batch(evenly(rows, COMPARED), band)
    basis = comparison(volume, rotations, sample, per_sample(noise, sample), settings, recipe.components)
    gallery, training = build_gallery(volume, rotations, step_rad, basis, engine.compute), None
    if recipe.quantises and len(rotations) < TRAINING:
        more = random_rotations(TRAINING, np.random.default_rng([engine.settings.compute.seed, 3]))
        training = build_gallery(volume, more, step_rad, basis, engine.compute).vectors
    shifts = torch.from_numpy(shift_grid(plan.shift_range_a, plan.shift_step_a)).float().to(engine.device)
    return IndexSearch(basis, gallery, build_index(gallery.vectors, settings.recipe, settings.nprobe, training), shifts)


def comparison(volume: torch.Tensor, rotations: np.ndarray, sample: ParticleBatch, noise: torch.Tensor,
               settings: SearchSettings, components: int) -> Comparison:
    """How particles like `sample`, with noise power (B, L), are compared with references: by the metric of the settings."""
    if settings.metric == "likelihood":
        return find_basis(volume, rotations, sample.band, (sample.ctf ** 2 / noise).mean(0), components)
    return find_metric_basis(volume, rotations, sample, noise, settings.metric, settings.wiener, components)


def grid_step(engine: Engine, plan: IterationPlan) -> float:
    """Spacing (rad) of the plan's orientations, which leaves a few of them in any asymmetric unit."""
    return min(plan.angular_step_rad, coarsest_step(len(engine.operators)))


def coarsest_step(operators: int) -> float:
    """Spacing (rad) that leaves about four directions in the asymmetric unit of a group of so many operators."""
    return 0.5 * float(np.sqrt(4 * np.pi / operators))


def check_gallery(references: int, components: int, compute: Compute) -> None:
    """Raises `InputError` when the vectors of as many references, twice while they are gathered, pass half the memory."""
    size = references * components * 8
    if size > compute.memory_bytes / 2:
        raise InputError("the grid of orientations does not fit in memory",
                         found=f"{references:,} references, {size / 1e9:.1f} GB",
                         expected=f"at most {compute.memory_bytes / 2e9:.1f} GB",
                         remedy="Raise --search-resolution, or allow more memory with --memory.")


def evenly(rows: np.ndarray, count: int) -> np.ndarray:
    """Some of `rows`, at even distances: at least `count` where there are as many, and less than twice as many."""
    return rows[:: max(1, len(rows) // count)]


def search_rows(engine: Engine, searcher: Searcher, noise: np.ndarray, rows: np.ndarray, centre_a: np.ndarray,
                report: bool = True) -> list[Candidates]:
    """Candidates of every particle in `rows`, in batches, on every device."""
    count = engine.settings.search.candidates

    def candidates(asked: Searcher, batch: ParticleBatch, power: torch.Tensor, centre: torch.Tensor) -> Candidates:
        return asked.search(batch, power, centre, count).to(engine.device)

    def done(part: np.ndarray) -> None:
        if report:
            engine.reporter.advance(len(part))

    return asked_of_rows(engine, searcher, noise, rows, centre_a, candidates, done)


def total_evidence(engine: Engine, searcher: SteeredSearch, noise: np.ndarray, rows: np.ndarray) -> float:
    """Log-likelihood of the particles in `rows`, each at all poses together; what is no number does not count."""

    def evidence(asked: SteeredSearch, batch: ParticleBatch, power: torch.Tensor, centre: torch.Tensor) -> float:
        return float(asked.evidence(batch, power, centre).nan_to_num().double().sum())

    return sum(asked_of_rows(engine, searcher, noise, rows, np.zeros((len(engine.spectra), 2)), evidence))


def asked_of_rows(engine: Engine, searcher: AnySearcher, noise: np.ndarray, rows: np.ndarray, centre_a: np.ndarray,
                  ask: Callable[[AnySearcher, ParticleBatch, torch.Tensor, torch.Tensor], Answer],
                  done: Callable[[np.ndarray], None] | None = None) -> list[Answer]:
    """What `ask` says of a searcher, a batch, its noise power and the centres of its shifts, for all of `rows`, batch by
    batch, on every device."""
    def asking(place: Compute) -> Callable[[np.ndarray], Answer]:
        here, searcher_here = engine.on(place), searcher.to(place.device)

        def answered(part: np.ndarray) -> Answer:
            batch = here.batch(part, searcher_here.band)
            centre = torch.from_numpy(centre_a[part]).float().to(here.device)
            return ask(searcher_here, batch, per_sample(noise, batch), centre)

        return answered

    parts = engine.compute.batches(rows, searcher.bytes_per_particle(engine.settings.search.candidates))
    compute = engine.compute.one_by_one() if searcher.whole_processor else engine.compute
    with compute.rounded_products():
        return compute.spread(asking, parts, done)


def joined(parts: list[Candidates]) -> Candidates:
    return Candidates(torch.cat([p.image_to_volume for p in parts]), torch.cat([p.shift_a for p in parts]),
                      torch.cat([p.score for p in parts]))


def measure_recall(engine: Engine, searcher: Searcher, volume: torch.Tensor, noise: np.ndarray, rows: np.ndarray,
                   centre_a: np.ndarray, found: Candidates, least: int) -> Recall:
    """How many of a sample of `rows` have the pose that an exhaustive search likes best among their candidates `found`.

    A candidate counts within 1.5 steps of the grid, in orientation and shift. Batches of a few particles share each slice.
    least: particles that are measured whatever that costs.
    """
    band, shifts_a, orientations = searcher.band, searcher.shifts_a, searcher.orientations()
    cost = 2 * len(band) * len(orientations) * len(shifts_a) / searcher.products
    chosen = recall_sample(engine, len(rows), cost, least)
    step_a = float((shifts_a[1:] - shifts_a[0]).norm(dim=1).min()) if len(shifts_a) > 1 else 0.0
    held = 0
    for part in engine.compute.batches(chosen, len(shifts_a) * (len(band) * RAMP_BYTES + 400)):
        batch = engine.batch(rows[part], band)
        centre = torch.from_numpy(centre_a[rows[part]]).float().to(engine.device)
        moves = centre[:, None] + shifts_a[None]
        best = exhaustive_search(batch, per_sample(noise, batch), volume, orientations, moves)
        held += int(holds_best(found.take(part), best, engine.operators, 1.5 * searcher.angular_step_rad,
                               1.5 * step_a + 1e-3).sum())
    return Recall(held, len(chosen), len(rows), searcher.description)


def recall_sample(engine: Engine, particles: int, cost: float, least: int) -> np.ndarray:
    """Which of so many particles are searched exhaustively, where one costs as much as the vector search of `cost`."""
    allowed = int(RECALL_SHARE * particles / cost)
    count = min(particles, engine.settings.search.recall_sample, max(least, allowed))
    return np.unique(np.linspace(0, particles - 1, count).round().astype(np.int64))


