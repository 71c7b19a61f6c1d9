"""The global search from coarse to fine, over references that are turned in the plane when they are needed.

All poses of a coarse grid are compared at a coarse resolution; the cells of the best are divided and their parts compared at
twice the resolution, and so on. Only the directions of a gallery are kept: its turns are phases (maths/steering.py).
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from swiftres_plugin.engine.data.search import Band, Candidates, SteeredGallery
from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.maths.basins import PER_CANDIDATE, distinct
from swiftres_plugin.engine.maths.fourier import RAMP_BYTES, ramps_back
from swiftres_plugin.engine.maths.geometry import DIRECTION_PARTS, SHIFT_PARTS, TURN_PARTS
from swiftres_plugin.engine.maths.steering import Steering
from swiftres_plugin.engine.maths.vectors import as_real

ORIENTATIONS = 512  # best of a particle on the first grid that are looked at, at every shift,
POSES = 1024  # and best poses whose cells are divided,
SURVIVORS = 20.0  # unless their log-likelihood is farther below the best,
SURE = 64  # but for so many: strong particles lose more between the points of a coarse grid
BLOCK_SCORES = 1 << 21  # made at once on a processor: few enough for its cache
PART_BYTES = 1 << 26  # working memory to divide cells on a processor,
DEVICE_FACTOR = 32  # and how much more of both suits other devices
PARTS = DIRECTION_PARTS * TURN_PARTS * SHIFT_PARTS


@dataclass(frozen=True, eq=False, slots=True)
class Level:
    """A grid of poses, and how images are compared with references there; shifts_a: (S, 2); ramps: (S, L) of these."""

    steering: Steering
    gallery: SteeredGallery
    shifts_a: torch.Tensor
    ramps: torch.Tensor

    def to(self, device: torch.device) -> Level:
        return Level(self.steering.to(device), self.gallery.to(device), self.shifts_a.to(device), self.ramps.to(device))

    def asked(self, batch: ParticleBatch, noise: torch.Tensor, centre_a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries (B, S, J) complex, and what the power of each direction's references takes off their scores (B, G)."""
        few = batch.up_to(self.steering.band.last_shell)
        power = noise[:, :len(few.band)]
        taken = self.steering.power_of_particles(few, power) @ self.gallery.power.T
        placed = replace(few, images=few.images * ramps_back(few.band, centre_a))
        return self.steering.of_particles(placed, power, self.ramps[None]), taken

    def query_bytes(self) -> int:
        """Working memory of a particle's queries."""
        return len(self.shifts_a) * (len(self.steering.band) * RAMP_BYTES + 16 * len(self.steering.order))


@dataclass(frozen=True, eq=False, slots=True)
class Poses:
    """Numbers of direction, turn and shift of M poses of B particles on a grid, and their scores: (B, M) each."""

    direction: torch.Tensor
    turn: torch.Tensor
    shift: torch.Tensor
    score: torch.Tensor

    def best(self, count: int) -> Poses:
        """The `count` of highest score, in falling order."""
        score, order = self.score.topk(min(count, self.score.shape[1]), dim=1)
        return Poses(self.direction.gather(1, order), self.turn.gather(1, order), self.shift.gather(1, order), score)


@dataclass(frozen=True, eq=False, slots=True)
class SteeredSearch:
    """Grids from coarse to fine, each dividing the cells of the one before it."""

    levels: tuple[Level, ...]

    def to(self, device: torch.device) -> SteeredSearch:
        return SteeredSearch(tuple(level.to(device) for level in self.levels))

    @property
    def band(self) -> Band:
        return self.levels[-1].steering.band

    @property
    def shifts_a(self) -> torch.Tensor:
        return self.levels[-1].shifts_a

    @property
    def angular_step_rad(self) -> float:
        return self.levels[-1].gallery.angular_step_rad

    @property
    def description(self) -> str:
        return "coarse to fine" if len(self.levels) > 1 else "one grid"

    @property
    def whole_processor(self) -> bool:
        return False

    @property
    def products(self) -> float:
        first = self.levels[0]
        finer = sum(POSES * PARTS * 2 * len(level.steering.order) for level in self.levels[1:])
        return 2.0 * len(first.gallery) * len(first.shifts_a) * len(first.steering.order) + finer

    def orientations(self) -> torch.Tensor:
        return self.levels[-1].gallery.all_orientations()

    def bytes_per_particle(self, count: int) -> int:
        first = self.levels[0]
        looked = min(ORIENTATIONS, len(first.gallery)) * (16 * len(first.steering.order) + 24 * len(first.shifts_a))
        return first.query_bytes() + 12 * len(first.gallery) + looked + POSES * 28 + 10 * (PER_CANDIDATE * count) ** 2

    def search(self, batch: ParticleBatch, noise: torch.Tensor, centre_a: torch.Tensor, count: int) -> Candidates:
        last, best = self.levels[-1], self.found(batch, noise, centre_a).best(PER_CANDIDATE * count)
        rotation = last.gallery.orientations(best.direction, best.turn)
        return distinct(rotation, centre_a[:, None] + last.shifts_a[best.shift], best.score, self.angular_step_rad, count)

    def evidence(self, batch: ParticleBatch, noise: torch.Tensor, centre_a: torch.Tensor) -> torch.Tensor:
        """(B,) log of the likelihood of each particle, summed over the best poses of the finest grid."""
        return self.found(batch, noise, centre_a).score.logsumexp(1)

    def found(self, batch: ParticleBatch, noise: torch.Tensor, centre_a: torch.Tensor) -> Poses:
        """The best poses of the finest grid, in falling order."""
        found = promising(self.levels[0], *self.levels[0].asked(batch, noise, centre_a))
        for level in self.levels[1:]:
            found = in_parts(level, found, batch, noise, centre_a)
        return found


def promising(level: Level, queries: torch.Tensor, power: torch.Tensor) -> Poses:
    """The best poses of particles among all of a grid, for their queries (B, S, J) and what power takes off (B, G).

    The best references, each at its best shift, are found first, so that few of the scores are sorted.
    """
    gallery, shifts = level.gallery, queries.shape[1]
    peak = (best_over_shifts(gallery, queries) - power[:, None]).flatten(1)
    best = peak.topk(min(ORIENTATIONS, peak.shape[1]), dim=1).indices
    turn, direction = best // len(gallery.frames), best % len(gallery.frames)
    vectors = as_real(gallery.numbers[direction] * gallery.phases()[turn])
    score = as_real(queries) @ vectors.transpose(1, 2) - power.gather(1, direction)[:, None]
    shift = torch.arange(shifts, device=score.device)[:, None].expand_as(score)
    return Poses(*(values.flatten(1) for values in (direction[:, None].expand_as(score), turn[:, None].expand_as(score), shift,
                                                    score))).best(POSES)


def best_over_shifts(gallery: SteeredGallery, queries: torch.Tensor) -> torch.Tensor:
    """(B, P, G) the largest product of each reference with a particle's queries (B, S, J).

    Half a turn changes the sign of odd orders alone, so the products of even and of odd orders serve two angles each.
    """
    even, half = gallery.even_orders, len(gallery.psi_rad) // 2
    flat = [as_real(part).flatten(0, 1) for part in (queries[..., :even], queries[..., even:])]
    size = max(1, fitting(BLOCK_SCORES, queries.device) // (len(flat[0]) * len(gallery.frames)))
    ahead, behind = [], []
    for phases in gallery.phases()[:half].split(size):
        vectors = (phases[:, None] * gallery.numbers).flatten(0, 1)
        alike, other = flat[0] @ as_real(vectors[:, :even]).T, flat[1] @ as_real(vectors[:, even:]).T
        shape = (*queries.shape[:2], len(phases), -1)
        ahead.append((alike + other).view(shape).amax(1))
        behind.append(alike.sub_(other).view(shape).amax(1))
    return torch.cat(ahead + behind, dim=1)


def in_parts(level: Level, found: Poses, batch: ParticleBatch, noise: torch.Tensor, centre_a: torch.Tensor) -> Poses:
    """`divided`, a few particles at a time."""
    each = level.query_bytes() + found.score.shape[1] * (200 * len(level.steering.order) + 100 * PARTS)
    rows = torch.arange(len(noise), device=noise.device).split(max(1, fitting(PART_BYTES, noise.device) // each))
    parts = [divided(level, Poses(found.direction[some], found.turn[some], found.shift[some], found.score[some]),
                     *level.asked(batch.take(some), noise[some], centre_a[some])) for some in rows]
    return Poses(*(torch.cat([getattr(part, name) for part in parts]) for name in Poses.__slots__))


def divided(level: Level, found: Poses, queries: torch.Tensor, power: torch.Tensor) -> Poses:
    """The best poses of a finer grid among the parts of the cells of those `found` that are worth it."""
    worth = found.score >= found.score[:, :1] - SURVIVORS
    worth[:, :SURE] |= found.score[:, :SURE].isfinite()
    particle, place = torch.nonzero(worth, as_tuple=True)
    direction = parts_of(found.direction, DIRECTION_PARTS)
    turn, shift = parts_of(found.turn, TURN_PARTS), parts_of(found.shift, SHIFT_PARTS)
    ahead = level.gallery.phases().conj()[turn[particle, place]]
    asked = queries[particle[:, None], shift[particle, place]][:, :, None] * ahead[:, None]
    numbers = as_real(level.gallery.numbers[direction[particle, place]])
    score = numbers @ as_real(asked.flatten(1, 2)).transpose(1, 2)
    score -= power[particle[:, None], direction[particle, place]][..., None]
    shape = (*found.score.shape, DIRECTION_PARTS, SHIFT_PARTS, TURN_PARTS)
    every = score.new_full(shape, -torch.inf)
    every[particle, place] = score.unflatten(2, (SHIFT_PARTS, TURN_PARTS))
    return Poses(direction[..., :, None, None].expand(shape).flatten(1), turn[..., None, None, :].expand(shape).flatten(1),
                 shift[..., None, :, None].expand(shape).flatten(1), every.flatten(1)).best(POSES)


def fitting(amount: int, device: torch.device) -> int:
    return amount if device.type == "cpu" else DEVICE_FACTOR * amount


def parts_of(numbers: torch.Tensor, parts: int) -> torch.Tensor:
    """(..., parts) numbers of the parts on the finer grid."""
    return numbers[..., None] * parts + torch.arange(parts, device=numbers.device)
