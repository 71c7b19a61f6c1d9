"""Classes of particles at fixed poses: found among the directions in which particles vary, then told apart in rounds.

First the particles' coordinates on the few directions in which they vary most are found, at a coarse resolution
(engine/variability.py); a mixture of K points among them, in shares of any size, is where the classes begin. Each round then
makes the map of every class from the particles' shares in it. What sets it apart from the map of all, damped, is a direction
again; a mixture along these gives the new shares. Its points are free: damping shrinks a difference, and a class that had to
stand at its own map would make up for that by holding more particles than are its own.
Two things keep noise from becoming classes:

* A particle is never compared with a map that it is in: each half of the particles is divided in folds, and those of a fold
  see the maps of the other folds.
* The halves do not see each other's maps, but where and how finely their classes differ in the same way: what sets a class
  apart is damped by that, and classes that nothing sets apart in both halves come to be the same.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from swiftres_plugin.engine.class_maps import SeenHalf, SetApart, Setting, seen_half
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.given_poses import FOLDS, damping, fixed_scores, in_box_of, small_engine
from swiftres_plugin.engine.maths.mixture import find_mixture, settled
from swiftres_plugin.engine.stages.classes import (
    certainty,
    changed,
    entropy,
    matching,
    one_class_each,
    posterior,
)
from swiftres_plugin.engine.variability import find_coordinates, find_directions, mean_map

MOST_ROUNDS = 25
SETTLED = 0.005  # share of particles that still move
LEAST_AGREEMENT = 0.5  # correlation between the halves of what sets a class apart: errors of poses alone have reached 0.42
LEAST_CERTAINTY = 0.4  # of particles in different structures: 0.63 and more were seen
LEAST_PARTICLES = 8.0  # of a class in a half: two for each fold
LEAST_EVIDENCE = 10.0  # of a half, for its classes to be set apart by anything
FURTHER = 2  # directions beyond the one fewer than classes that sets K points apart
OF_A_HALF = (FOLDS - 1) / FOLDS  # what the maps are made of that the particles of a fold see
MIXTURES = 20  # starts of the mixture
COARSE_A, COARSE_SHELLS = 15.0, 16  # at the most, of the directions and of the first rounds: most of what tells classes apart


@dataclass(frozen=True, eq=False, slots=True)
class Round:
    """Shares (N, K) of the particles in the classes; evidence: mean log-likelihood over that of the map of all;
    agreement: correlation (K,) between the halves of what sets each class apart, 0 where nothing does; changes: part of the
    particles that moved."""

    shares: np.ndarray
    evidence: float
    agreement: np.ndarray
    changes: float

    @property
    def entropy(self) -> float:
        return entropy(self.shares)

    @property
    def certainty(self) -> float:
        return certainty(self.shares)

    @property
    def doubt(self) -> str:
        """What speaks against these classes being different structures; nothing where they seem to be."""
        if self.agreement.max() < LEAST_AGREEMENT:
            return (f"The two halves of the particles hardly agree in what sets the classes apart (correlation "
                    f"{self.agreement.max():.2f} at most): the particles may be of one structure, and the division noise.")
        if self.certainty < LEAST_CERTAINTY:
            return (f"Most particles are not sure of their class ({self.certainty:.0%} of the doubt removed): what varies may "
                    "be a motion, or errors of poses, more than different structures.")
        return ""


def classify(engine: Engine, setting: Setting, count: int, resolution_a: float, starts: int, seed: int) -> list[Round]:
    """Rounds that part the particles into `count` classes from nothing, first to the resolution of their start."""
    coarse_a = max(resolution_a, COARSE_A, engine.spectra.band.box_a / COARSE_SHELLS)
    found = rounds(engine, setting, started(engine, setting, count, coarse_a, starts, seed), coarse_a)
    return found if coarse_a == resolution_a else found + rounds(engine, setting, found[-1].shares, resolution_a)


def rounds(engine: Engine, setting: Setting, shares: np.ndarray, resolution_a: float, most: int = MOST_ROUNDS) -> list[Round]:
    """Rounds to one resolution until hardly a particle moves."""
    small, window = small_engine(engine, setting.window, resolution_a)
    here = replace(setting, window=window)
    halves = [seen_half(small, here, h) for h in (0, 1)]
    done: list[Round] = []
    while len(done) < most and (not done or done[-1].changes >= SETTLED):
        done.append(one_round(halves, here.hard, shares))
        shares = done[-1].shares
        sizes = ", ".join(f"{size:.0f}" for size in shares.sum(axis=0))
        engine.reporter.message(f"Classes to {resolution_a:.1f} A: {sizes} particles; {done[-1].changes:.1%} moved, "
                                f"entropy {done[-1].entropy:.2f}")
    return done


def one_round(halves: Sequence[SeenHalf], hard: bool, shares: np.ndarray) -> Round:
    """New shares from the maps that the present ones make. How large classes are is each half's own, as its classes are."""
    filled = [np.flatnonzero(shares[seen.rows].sum(axis=0) >= LEAST_PARTICLES) for seen in halves]
    apart = [seen.set_apart(shares[seen.rows][:, kept]) for seen, kept in zip(halves, filled)]
    differences = [spread_out(kept, shares.shape[1], [one.damped for one in half]) for kept, half in zip(filled, apart)]
    partner, agreement = matching(*differences)
    found, evidence = np.zeros(shares.shape), []
    for seen, kept, maps in zip(halves, filled, damped_together(halves[0].engine, filled, apart, partner)):
        told = seen.coordinates([[one[number] for one in maps] for number in range(FOLDS)])
        mixture = settled(told.linear, told.precision, np.eye(len(kept)))
        found[np.ix_(seen.rows, kept)] = mixture.shares
        evidence.append(mixture.evidence)
    if hard:
        found = one_class_each(found)
    moved = changed(shares, found)
    second = halves[1].rows
    found[second] = found[second][:, partner]
    apart_at_all = min(one * len(seen.rows) for one, seen in zip(evidence, halves)) > LEAST_EVIDENCE
    return Round(found, float(np.mean(evidence)), agreement * apart_at_all, moved)


def spread_out(kept: np.ndarray, count: int, maps: Sequence[torch.Tensor]) -> np.ndarray:
    """(count, m, m, m) the maps in the places `kept`; the others are empty."""
    every = np.zeros((count, *maps[0].shape), np.float32)
    every[kept] = np.stack([one.cpu().numpy() for one in maps])
    return every


def damped_together(engine: Engine, filled: Sequence[np.ndarray], apart: Sequence[Sequence[SetApart]],
                    partner: np.ndarray) -> list[list[list[torch.Tensor]]]:
    """What sets the classes of each half apart, damped by how far it agrees with its partner of the other half.

    Only where and how finely classes differ passes between the halves, as a mask does. Folds of one half will not do: they
    agree in their own noise too, once their classes have been found from each other's maps. A class that the other half lacks
    is not set apart.
    """
    maps = [[[torch.zeros_like(voxels) for voxels in one.maps] for one in half] for half in apart]
    places = [{int(k): number for number, k in enumerate(kept)} for kept in filled]
    pairs = [(first, places[1][int(partner[k])]) for k, first in places[0].items() if int(partner[k]) in places[1]]
    for first, second in pairs:
        pair = (apart[0][first].maps, apart[1][second].maps)
        less = damping([one[FOLDS] for one in pair], engine.spectra.band.pixel_size_a, OF_A_HALF)
        maps[0][first], maps[1][second] = ([less(one) for one in some] for some in pair)
    return maps


def started(engine: Engine, setting: Setting, count: int, resolution_a: float, starts: int, seed: int) -> np.ndarray:
    """(N, K) shares of each half in a mixture along the directions in which the other half varies.

    Which class of the one half is which of the other is not known yet.
    """
    small, window = small_engine(engine, setting.window, resolution_a)
    here, halves = replace(setting, window=window), [np.flatnonzero(setting.half == h) for h in (0, 1)]
    shares = np.zeros((len(setting.half), count))
    for h, rows in enumerate(halves):
        found, mean = [], mean_map(small, here.noise[h], rows, here.poses, window)
        for trial in range(starts):
            maps = find_directions(small, here.noise[1 - h], halves[1 - h], here.poses, window, count - 1 + FURTHER,
                                   np.random.default_rng([seed, 5, trial]))
            told = find_coordinates(small, here.noise[h], rows, here.poses, mean, maps)
            found.append(find_mixture(told.linear, told.precision, count, MIXTURES, seed))
        best = max(found, key=lambda one: one.evidence)
        shares[rows] = best.shares
        engine.reporter.message(f"Half {h + 1} begins with classes of {', '.join(f'{part:.0%}' for part in best.part)}; "
                                f"evidence {', '.join(f'{one.evidence:.3f}' for one in found)} a particle")
    return one_class_each(shares) if setting.hard else shares


def started_from(engine: Engine, setting: Setting, references: Sequence[torch.Tensor], resolution_a: float) -> np.ndarray:
    """(N, K) shares by the likelihood against given maps (n, n, n), on the scale of the particles."""
    small, _ = small_engine(engine, setting.window, resolution_a)
    fitting = [in_box_of(small, one) for one in references]
    shares = np.zeros((len(setting.half), len(references)))
    for h in (0, 1):
        rows = np.flatnonzero(setting.half == h)
        scores = np.concatenate([fixed_scores(small, one, setting.noise[h], rows, setting.poses)
                                 for one in fitting], axis=1)
        shares[rows] = posterior(scores, np.full(len(references), 1 / len(references)))
    return one_class_each(shares) if setting.hard else shares

