"""Directions in which particles at known poses vary, before anything is said of classes.

A particle is X = C P (mean + sum over k of z_k V_k) + noise: probabilistic principal components of the map, seen through
projections and CTFs (Tagare et al. 2015, J. Struct. Biol. 191, 245; Punjani and Fleet 2021, J. Struct. Biol. 213, 107702).
Maps V from the particles' coordinates and coordinates from the maps are found in turns. No direction is favoured by how many
particles lie on either side of it, so a small class shows as a large one does.

* Coordinates of a particle come from maps that it is not in: each half of the particles is divided in folds, as in
  engine/classify.py, and finds its directions alone. (Directions remember all particles that helped to find them, even in
  another's map. What counts in the end are therefore coordinates on the directions that the other half found.)
* What differs between conformations stands in one place; noise is everywhere. Directions are damped, shell by shell and
  then region by region, by how far two sets of folds agree in them.
* Coordinates are made uncorrelated and of variance one in every round, which keeps directions apart and weak ones alive.
* What a small change of a particle's pose or contrast would explain does not count, as far as the particles vary in these
  (stages/nuisance.py): both are variations too, and the same in both halves.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import torch

from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.maps import Accumulator
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.given_poses import FOLDS, damping, map_of_folds
from swiftres_plugin.engine.insertion import insert_bytes, reconstruct_half
from swiftres_plugin.engine.maths.fourier import phase_ramp
from swiftres_plugin.engine.maths.mixture import likeliest
from swiftres_plugin.engine.maths.slices import empty_sums, extract_slices, insert_slices
from swiftres_plugin.engine.stages import local
from swiftres_plugin.engine.stages.classes import uncorrelated
from swiftres_plugin.engine.stages.noise import per_sample
from swiftres_plugin.engine.stages.nuisance import deviations, products, whitened
from swiftres_plugin.engine.stages.reconstruct import finished

HALF_FOLDS = (range(0, FOLDS // 2), range(FOLDS // 2, FOLDS))
ROUNDS = 24
MOST_PARTICLES = 10_000  # of a half that directions are found from
HELD_BYTES = 150  # of a coefficient of a particle: what is held of it, and as much again to work with


@dataclass(frozen=True, eq=False, slots=True)
class Residuals:
    """What the mean map leaves of n particles, in units of their noise: values (n, L) complex, centred; transfer (n, L), the
    CTF in the same units; rotation (n, 3, 3); nuisance (n, 6, L), what pose and contrast may explain of anything: the values
    are without it already."""

    values: torch.Tensor
    transfer: torch.Tensor
    rotation: torch.Tensor
    nuisance: torch.Tensor

    def take(self, rows: np.ndarray) -> Residuals:
        """Those of `rows`, which follow each other with a constant step; nothing is copied."""
        step = int(rows[1] - rows[0]) if len(rows) > 1 else 1
        at = slice(int(rows[0]), int(rows[-1]) + 1, step)
        return Residuals(*(getattr(self, name)[at] for name in Residuals.__slots__))


@dataclass(frozen=True, eq=False, slots=True)
class Coordinates:
    """What n particles say of their coordinates: log p = 2 linear . z - z^T precision z, (n, D) and (n, D, D)."""

    linear: np.ndarray
    precision: np.ndarray

    def take(self, rows: np.ndarray) -> Coordinates:
        return Coordinates(self.linear[rows], self.precision[rows])

    @staticmethod
    def joined(parts: Sequence[Coordinates]) -> Coordinates:
        return Coordinates(*(np.concatenate([getattr(part, name) for part in parts]) for name in Coordinates.__slots__))


def find_directions(engine: Engine, noise: np.ndarray, rows: np.ndarray, poses: Assignment, window: np.ndarray, count: int,
                    generator: np.random.Generator) -> list[torch.Tensor]:
    """Maps (n, n, n) of the `count` directions in which the particles at `rows`, one half of all, vary most.

    engine: with the band to compare on; window: (n, n, n), through which maps are seen, in its box.
    """
    rows = np.sort(generator.permutation(rows)[:most_rows(engine)])
    seen = residuals(engine, noise, rows, poses, mean_map(engine, noise, rows, poses, window))
    folds = [np.arange(number, len(rows), FOLDS) for number in range(FOLDS)]
    z = uncorrelated(generator.standard_normal((len(rows), count)))
    for _ in range(ROUNDS):
        maps = [direction(engine, seen, folds, along, window) for along in z.T]
        for number, fold in enumerate(folds):
            told = coordinates(engine, seen.take(fold), [along[number] for along in maps])
            z[fold] = likeliest(told.linear, told.precision)
        z = uncorrelated(z)
    return [along[FOLDS] for along in maps]


def find_coordinates(engine: Engine, noise: np.ndarray, rows: np.ndarray, poses: Assignment, mean: torch.Tensor,
                     maps: Sequence[torch.Tensor]) -> Coordinates:
    """Coordinates of the particles at `rows` about the map `mean`, on directions that were found without them."""
    return Coordinates.joined([coordinates(engine, residuals(engine, noise, part, poses, mean), maps)
                               for part in parts_held(engine, rows)])


def most_rows(engine: Engine) -> int:
    """Particles of a half that directions are found from."""
    return min(MOST_PARTICLES, rows_held(engine))


def rows_held(engine: Engine) -> int:
    """Particles whose residuals may be held at one time."""
    return max(FOLDS, int(engine.compute.memory_bytes / 4 / (len(engine.spectra.band) * HELD_BYTES)))


def parts_held(engine: Engine, rows: np.ndarray) -> list[np.ndarray]:
    """`rows` in parts whose residuals may be held at one time."""
    return np.array_split(rows, max(1, -(-len(rows) // rows_held(engine))))


def mean_map(engine: Engine, noise: np.ndarray, rows: np.ndarray, poses: Assignment, window: np.ndarray) -> torch.Tensor:
    """The map (n, n, n) of the particles at `rows`."""
    return map_of_folds(engine, window, [reconstruct_half(engine, noise, rows, poses.take(rows), "variability")])


def residuals(engine: Engine, noise: np.ndarray, rows: np.ndarray, poses: Assignment, mean: torch.Tensor) -> Residuals:
    """What a map leaves of the particles at `rows`; `poses` are those of all."""
    whole, home = engine.spectra.band, engine.device
    volume = engine.volume(mean, whole.last_shell)

    def leaving(place: Compute) -> Callable[[np.ndarray], tuple[torch.Tensor, ...]]:
        here, band, volume_here = engine.on(place), whole.to(place.device), volume.to(place.device)

        def left(part: np.ndarray) -> tuple[torch.Tensor, ...]:
            batch = here.batch(part, band)
            rotation = torch.from_numpy(poses.image_to_volume[part]).float().to(place.device)
            shift_a = torch.from_numpy(poses.shift_a[part]).float().to(place.device)
            unit = per_sample(noise, batch).rsqrt()
            explained, changes = local.explained(batch, volume_here, rotation)
            values = (batch.images * phase_ramp(band.wave_px.float() / band.box_a, -shift_a) - explained) * unit
            jacobian = torch.cat([changes, explained[:, None]], dim=1) * unit[:, None]
            told = products(jacobian, jacobian), products(jacobian, values[:, None])[..., 0]
            return tuple(one.to(home) for one in (values, batch.ctf * unit, rotation, jacobian, *told))

        return left

    parts = engine.compute.spread(leaving, engine.compute.batches(rows, len(whole) * HELD_BYTES))
    values, transfer, rotation, jacobian, overlap, linear = (torch.cat(some) for some in zip(*parts))
    return without_nuisance(engine, Residuals(values, transfer, rotation, jacobian), overlap, linear)


def without_nuisance(engine: Engine, seen: Residuals, overlap: torch.Tensor, linear: torch.Tensor) -> Residuals:
    """The residuals without what pose and contrast may explain, from J in the place of `nuisance`, which is overwritten, its
    products (n, 6, 6) with itself and (n, 6) with the residuals."""
    deviation = deviations(overlap.double(), linear.double()).float()
    for part in engine.compute.batches(np.arange(len(linear)), len(engine.spectra.band) * HELD_BYTES):
        at = slice(part[0], part[-1] + 1)
        seen.nuisance[at] = whitened(seen.nuisance[at], overlap[at], deviation)
        share = products(seen.nuisance[at], seen.values[at, None])
        seen.values[at] -= (share * seen.nuisance[at]).sum(1)
    return seen


def direction(engine: Engine, seen: Residuals, folds: Sequence[np.ndarray], along: np.ndarray,
              window: np.ndarray) -> list[torch.Tensor]:
    """The map that goes with one coordinate (n,) of all particles, as it shows without each of the folds, and to all."""
    sums = [weighted_sums(engine, seen.take(fold), along[fold]) for fold in folds]

    def made_of(part: Sequence[int]) -> torch.Tensor:
        voxels = engine.solved(reduce(add, [sums[fold] for fold in part]))
        return voxels * torch.from_numpy(window).to(voxels.device)

    return damped(engine, made_of)


def damped(engine: Engine, made_of: Callable[[Sequence[int]], torch.Tensor]) -> list[torch.Tensor]:
    """The map that is `made_of` all folds but each, and of all, damped by how far two sets of folds agree in it."""
    less = damping([made_of(half) for half in HALF_FOLDS], engine.spectra.band.pixel_size_a)
    return [less(made_of(others(number))) for number in range(FOLDS + 1)]


def others(left_out: int) -> tuple[int, ...]:
    """The numbers of all folds but one; of all of them where none has that number."""
    return tuple(fold for fold in range(FOLDS) if fold != left_out)


def weighted_sums(engine: Engine, seen: Residuals, along: np.ndarray) -> Accumulator:
    """Sums for the map that explains the residuals best when it is multiplied by `along` (n,), which may be negative."""
    band, factor = engine.spectra.band, torch.from_numpy(along).float().to(engine.device)

    def summed(place: Compute, parts: Iterator[np.ndarray]) -> torch.Tensor:
        sums = empty_sums(band.last_shell, place.device)
        wave = band.wave_px.to(place.device)
        for part in parts:
            some, times = seen.take(part), factor[part[0]:part[-1] + 1, None]
            values, weights, rotation = (one.to(place.device) for one in (
                some.values * some.transfer * times, (some.transfer * times) ** 2, some.rotation))
            insert_slices(sums, values, weights, rotation, wave)
        return sums

    size = empty_sums(band.last_shell, "meta").nbytes
    first, *others = engine.compute.gathered(summed, np.arange(len(along)), insert_bytes(engine.compute, band), size)
    return finished(sum((one.to(first.device) for one in others), first).cpu(), float(len(along)))


def coordinates(engine: Engine, seen: Residuals, maps: Sequence[torch.Tensor]) -> Coordinates:
    """What the particles say of their coordinates along the maps."""
    band = engine.spectra.band.to(engine.device)
    volumes = [engine.volume(along, band.last_shell) for along in maps]

    def told(part: np.ndarray) -> Coordinates:
        some = seen.take(part)
        slices = [extract_slices(volume, some.rotation, band.wave_px) * some.transfer for volume in volumes]
        along = torch.stack(slices, 1)
        hidden = products(along, some.nuisance)
        linear = products(along, some.values[:, None])[..., 0]
        precision = products(along, along) - hidden @ hidden.transpose(1, 2)
        return Coordinates(linear.double().cpu().numpy(), precision.double().cpu().numpy())

    batches = engine.compute.batches(np.arange(len(seen.rotation)), insert_bytes(engine.compute, band) * len(maps))
    return Coordinates.joined(engine.compute.map(told, batches))
