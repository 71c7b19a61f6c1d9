"""Posed particles of one half summed into a reconstruction: at once, or slab by slab where the sums do not fit in memory."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch

from swiftres_plugin.engine.align import posed
from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.maps import Accumulator
from swiftres_plugin.engine.data.search import Assignment, Band
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.maths.slices import complete_central_plane, empty_sums
from swiftres_plugin.engine.maths.symmetry import turns_of_axes
from swiftres_plugin.engine.stages.noise import per_sample
from swiftres_plugin.engine.stages.reconstruct import drawn_poses, finished, insert

INSERT_BYTES = 140  # working memory per coefficient of a particle, as measured and a little more
SUM_BYTES = 12  # of a point of the grid
WHOLE_INSERT_BYTES, WHOLE_SUM_BYTES = 60, 24  # beside these where another device than the processor adds integers
LEAST_SHARE = 1e-3  # weight in the map of an image that shows no particle


@dataclass(frozen=True, eq=False, slots=True)
class Insertion:
    """What is put into a map: the particles at `rows` at their `poses`, by their noise power (groups, S), up to the end of
    `band`, as many times as there are `normal` numbers (draws, B, 5); share: (B,) weight of each, one if left out."""

    engine: Engine
    noise: np.ndarray
    rows: np.ndarray
    poses: Assignment
    band: Band
    normal: torch.Tensor
    share: np.ndarray | None

    def batches_into(self, sums: torch.Tensor, where: Compute, parts: Iterator[np.ndarray], operators: np.ndarray,
                     done: Callable[[np.ndarray], None], place: torch.Tensor | None = None) -> None:
        """Batches added to `sums` at all mates by `operators`; place: see `maths.slices.insert_slices`."""
        here, band = self.engine.on(where), self.band.to(where.device)
        mates = torch.from_numpy(operators).float().to(where.device)
        for part in parts:
            batch = here.batch(self.rows[part], band)
            power = per_sample(self.noise, batch) * self.engine.settings.reconstruct.pose_samples
            if self.share is not None:
                power /= torch.from_numpy(self.share[part]).to(power)[:, None].clamp(min=LEAST_SHARE)
            for rotation, shift in _draws(self.poses, part, self.normal, where.device):
                insert(sums, batch, power, rotation, shift, mates, place=place)
            done(part)


def reconstruct_half(engine: Engine, noise: np.ndarray, rows: np.ndarray, poses: Assignment, name: str,
                     last_shell: int | None = None, share: np.ndarray | None = None) -> Accumulator:
    """Sums of the particles at `rows` up to `last_shell` (all by default), every worker into its own, added in order.

    share: the weight of each particle, one if left out.
    """
    whole = engine.spectra.band
    if engine.cluster is not None:
        return engine.cluster.reconstruct_half(engine, noise, rows, poses, name, last_shell or whole.last_shell, share)
    what = insertion_of(engine, noise, rows, poses, whole.last_shell if last_shell is None else last_shell, share)
    with engine.timed("reconstruction"):
        return at_once(what, name) if fits(engine) else in_slabs(what, name)


def unfinished_half(engine: Engine, noise: np.ndarray, rows: np.ndarray, poses: Assignment, last_shell: int,
                    share: np.ndarray | None) -> torch.Tensor:
    """Sums (3, 2K+1, 2K+1, K+1) on the host of a part of a half: they add to those of other parts, and are `finished` then."""
    return summed(insertion_of(engine, noise, rows, poses, last_shell, share), turns_of_axes(engine.operators)[1])


def insertion_of(engine: Engine, noise: np.ndarray, rows: np.ndarray, poses: Assignment, last_shell: int,
                 share: np.ndarray | None) -> Insertion:
    normal = _normal_numbers(engine.settings.reconstruct.pose_samples, engine.spectra.particles.particle_id[rows],
                             engine.settings.compute.seed)
    return Insertion(engine, noise, rows, poses, engine.spectra.band.up_to(last_shell), normal, share)


def fits(engine: Engine) -> bool:
    """Whether the whole grid fits in memory, on every device."""
    points = empty_sums(engine.spectra.band.last_shell, "meta")[0].numel()
    return not engine.storage.on_disk and points * grid_bytes(engine) <= engine.compute.memory_bytes / 2


def grid_bytes(engine: Engine) -> int:
    """Memory of a point of the grid while batches are added to it."""
    return SUM_BYTES + (WHOLE_SUM_BYTES if engine.device.type != "cpu" else 0)


def insert_bytes(place: Compute, band: Band) -> int:
    """Working memory of a particle that is added."""
    return len(band) * (INSERT_BYTES + (WHOLE_INSERT_BYTES if place.device.type != "cpu" else 0))


def at_once(what: Insertion, name: str) -> Accumulator:
    """The whole grid in memory, for every worker."""
    turns, inserted = turns_of_axes(what.engine.operators)
    what.engine.reporter.stage(f"{name}: reconstruction", len(what.rows))
    return finished(summed(what, inserted), float(len(what.rows)), turns)


def summed(what: Insertion, operators: np.ndarray) -> torch.Tensor:
    """Sums on the host of the particles at all mates by `operators`."""
    engine, last_shell = what.engine, what.engine.spectra.band.last_shell
    done = _advancing(engine)

    def gather(where: Compute, parts: Iterator[np.ndarray]) -> torch.Tensor:
        sums = empty_sums(last_shell, where.device)
        what.batches_into(sums, where, parts, operators, done)
        return sums

    size = empty_sums(last_shell, "meta").nbytes  # gigabytes for large boxes, and every worker has its own
    first, *others = engine.compute.gathered(gather, np.arange(len(what.rows)), insert_bytes(engine.compute, what.band), size)
    for sums in others:
        first += sums.to(first.device)
    return first.cpu()


def in_slabs(what: Insertion, name: str) -> Accumulator:
    """Some planes y of the grid after the other, each worker at its own, from all particles; the sums go to the storage.

    The grid ends a shell beyond the last that is inserted: interpolation reaches no farther.
    """
    engine = what.engine
    last_shell = min(what.band.last_shell + 1, engine.spectra.band.last_shell)
    _, depth, height, width = empty_sums(last_shell, "meta").shape
    numerator = engine.storage.empty((depth, height, width), torch.complex64)
    weight = engine.storage.empty((depth, height, width), torch.float32)
    room = engine.compute.memory_bytes / 4 / engine.compute.workers
    slabs = mirrored_slabs(height // 2, room / (grid_bytes(engine) * depth * width))
    pieces = f" in {len(slabs)} slabs" if len(slabs) > 1 else ""
    engine.reporter.stage(f"{name}: reconstruction{pieces}", len(what.rows) * len(slabs))
    done, rows = _advancing(engine), np.arange(len(what.rows))

    def working(where: Compute) -> Callable[[np.ndarray], None]:
        def work(planes: np.ndarray) -> None:
            sums = empty_sums(last_shell, where.device, len(planes))
            place = torch.full((height,), -1, device=where.device)
            place[torch.from_numpy(planes)] = torch.arange(len(planes), device=where.device)
            parts = iter(where.batches(rows, insert_bytes(where, what.band)))
            what.batches_into(sums, where, parts, engine.operators, done, place)
            write_planes(complete_central_plane(sums).cpu(), planes, numerator, weight)

        return work

    engine.compute.spread(working, slabs)
    return Accumulator(numerator, weight, float(len(what.rows)))


def mirrored_slabs(middle: int, most: float) -> list[np.ndarray]:
    """The planes 0..2 `middle` in slabs of at most so many (three at least), each with the mirror images of its planes."""
    step = max(1, int((most - 1) // 2))
    slabs = []
    for first in range(0, middle + 1, step):
        distance = np.arange(first, min(first + step, middle + 1))
        slabs.append(np.unique(np.concatenate([middle - distance, middle + distance])))
    return slabs


def write_planes(sums: torch.Tensor, planes: np.ndarray, numerator: torch.Tensor, weight: torch.Tensor) -> None:
    """Sums (3, 2K+1, rows, K+1) of the planes y to where they belong; planes that follow one another at once."""
    parts = torch.view_as_real(numerator)
    for run in np.split(np.arange(len(planes)), np.flatnonzero(np.diff(planes) > 1) + 1):
        here, there = slice(run[0], run[-1] + 1), slice(planes[run[0]], planes[run[-1]] + 1)
        parts[:, there, :, 0], parts[:, there, :, 1] = sums[0, :, here], sums[1, :, here]
        weight[:, there] = sums[2, :, here]


def _advancing(engine: Engine) -> Callable[[np.ndarray], None]:
    """Tells how many particles a worker has done; one worker at a time."""
    one_at_a_time = Lock()

    def done(part: np.ndarray) -> None:
        with one_at_a_time:
            engine.reporter.advance(len(part))

    return done


def _normal_numbers(draws: int, particle_id: np.ndarray, seed: int) -> torch.Tensor:
    """(draws, B, 5) standard normal numbers in pairs of opposite sign; none for a single draw.

    A particle's numbers are its own, whichever others it is put into the map with.
    """
    pairs = draws // 2 + draws % 2 if draws > 1 else 0
    everyone = np.random.default_rng([seed, 2]).standard_normal((particle_id.max(initial=-1) + 1, pairs, 5))
    half = everyone[particle_id].swapaxes(0, 1)
    return torch.from_numpy(np.concatenate([half, -half])[:draws])


def _draws(poses: Assignment, part: np.ndarray, normal: torch.Tensor,
           device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The best poses, or as many draws from their uncertainty as there are `normal` numbers for."""
    rotation, shift = posed(poses, part, device)
    if len(normal) == 0:
        yield rotation, shift
        return
    covariance = torch.from_numpy(poses.covariance[part])
    for numbers in normal:
        yield drawn_poses(rotation, shift, covariance, numbers[part])
