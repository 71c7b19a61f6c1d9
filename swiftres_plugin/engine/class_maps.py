"""Maps of classes among particles at fixed poses, and what the particles tell of them: one half, round after round.

Only the shares of the particles in the classes change between rounds. The map of all, its sums and what it leaves of every
particle are found once; the largest class has the sums of all without those of the others.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial, reduce

import numpy as np
import torch

from swiftres_plugin.engine.data.maps import Accumulator
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.given_poses import FOLDS, damping, map_of_folds
from swiftres_plugin.engine.insertion import reconstruct_half
from swiftres_plugin.engine.maths.slices import empty_sums
from swiftres_plugin.engine.stages.reconstruct import finished
from swiftres_plugin.engine.variability import (
    HALF_FOLDS,
    Coordinates,
    Residuals,
    coordinates,
    others,
    parts_held,
    residuals,
    rows_held,
)

LEAST_SHARE = 0.01  # of a particle in a class, to be put into its map


@dataclass(frozen=True, eq=False, slots=True)
class Setting:
    """What stays the same from round to round: poses of all N particles, noise power (2, groups, S), half set (N,), and
    the window (n, n, n) through which maps are seen; hard: whether each particle goes whole to its likeliest class; trust:
    (N,) how much each particle counts in maps, where not all count alike."""

    poses: Assignment
    noise: np.ndarray
    half: np.ndarray
    window: np.ndarray
    hard: bool = False
    trust: np.ndarray | None = None


@dataclass(frozen=True, eq=False, slots=True)
class SetApart:
    """What sets a class apart from all particles: maps (m, m, m) as it shows without each of the folds, and, last, to all; and
    the last of them damped by how far it repeats itself within this half of the particles."""

    maps: list[torch.Tensor]
    damped: torch.Tensor


@dataclass(frozen=True, eq=False, slots=True)
class SeenHalf:
    """The particles at `rows` (n,), one half of all, and what stays as it is while their shares change.

    folds: positions in `rows`; total: sums of each fold; common: their map (m, m, m); of_all: the map of some folds, by their
    numbers; left: what the common map leaves of each fold, in parts.
    """

    engine: Engine
    setting: Setting
    number: int
    rows: np.ndarray
    folds: tuple[np.ndarray, ...]
    total: tuple[Accumulator, ...]
    common: torch.Tensor
    of_all: Callable[[tuple[int, ...]], torch.Tensor]
    left: tuple[Sequence[Callable[[], Residuals]], ...]

    def set_apart(self, shares: np.ndarray) -> list[SetApart]:
        """What sets the map of each class of `shares` (n, K) apart from that of all."""
        largest = int(shares.sum(axis=0).argmax())
        small = {k: [self.sums_of(fold, shares[fold, k]) for fold in self.folds]
                 for k in range(shares.shape[1]) if k != largest}
        rest = [reduce(Accumulator.without, of_fold, whole) for whole, *of_fold in zip(self.total, *small.values())]
        return [self.differences(small.get(k, rest)) for k in range(shares.shape[1])]

    def differences(self, own: Sequence[Accumulator]) -> SetApart:
        """What sets maps of the sums of a class's folds apart from those of the same folds of all."""
        def difference(part: Sequence[int]) -> torch.Tensor:
            return map_of_some(self.engine, self.setting.window, own, part) - self.of_all(tuple(part))

        less = damping([difference(half) for half in HALF_FOLDS], self.engine.spectra.band.pixel_size_a, FOLDS / 2)
        maps = [difference(others(number)) for number in range(FOLDS + 1)]
        return SetApart(maps, less(maps[FOLDS]))

    def sums_of(self, fold: np.ndarray, share: np.ndarray) -> Accumulator:
        return fold_sums(self.engine, self.setting, self.number, self.rows[fold], share)

    def coordinates(self, maps: Sequence[Sequence[torch.Tensor]]) -> Coordinates:
        """What the particles of each fold say of their coordinates along the maps that were made without them."""
        told = [coordinates(self.engine, part(), along) for parts, along in zip(self.left, maps) for part in parts]
        return Coordinates.joined(told).take(np.argsort(np.concatenate(self.folds)))


def seen_half(engine: Engine, setting: Setting, h: int) -> SeenHalf:
    """Half `h` of the particles, before any of it is in a class."""
    rows = np.flatnonzero(setting.half == h)
    folds = tuple(np.arange(f, len(rows), FOLDS) for f in range(FOLDS))
    total = tuple(fold_sums(engine, setting, h, rows[fold], np.ones(len(fold))) for fold in folds)
    common = map_of_folds(engine, setting.window, total)
    of_all = cache(partial(map_of_some, engine, setting.window, total))
    left = tuple(left_of(engine, setting, h, rows[fold], common) for fold in folds)
    return SeenHalf(engine, setting, h, rows, folds, total, common, of_all, left)


def left_of(engine: Engine, setting: Setting, h: int, rows: np.ndarray, common: torch.Tensor) -> list[Callable[[], Residuals]]:
    """What gives the residuals of the particles at `rows`, in parts: held if those of all particles may be, else made anew."""
    make = [partial(residuals, engine, setting.noise[h], part, setting.poses, common) for part in parts_held(engine, rows)]
    return [cache(one) for one in make] if len(setting.half) <= rows_held(engine) else list(make)


def map_of_some(engine: Engine, window: np.ndarray, sums: Sequence[Accumulator], part: Sequence[int]) -> torch.Tensor:
    """The map of those of the folds whose numbers `part` names."""
    return map_of_folds(engine, window, [sums[number] for number in part])


def fold_sums(engine: Engine, setting: Setting, h: int, rows: np.ndarray, share: np.ndarray) -> Accumulator:
    """Sums of the particles at `rows` (of half `h`) with their `share` in a class."""
    kept = share > LEAST_SHARE
    if not kept.any():
        return finished(empty_sums(engine.spectra.band.last_shell, torch.device("cpu")), 0.0)
    rows, share = rows[kept], share[kept]
    weight = share if setting.trust is None else share * setting.trust[rows]
    return reconstruct_half(engine, setting.noise[h], rows, setting.poses.take(rows), f"classes, half {h + 1}", share=weight)
