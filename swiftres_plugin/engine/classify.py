"""Classes of particles at fixed poses: what differs among them is found by expectation and maximisation, half by half.

Each round makes the map of every class from the particles' shares in it, and takes new shares from the exact likelihood of
each particle in each class (stages/classes.py says how they are weighed). Two things keep noise from becoming classes:

* A particle is never compared with a map that it is in: each half of the particles is divided in folds, and those of a fold
  see the maps of the other folds.
* The halves do not see each other's maps. Which class of the one is which of the other is told from their maps in the end,
  and how well these then agree is reported.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
import torch

from swiftres_plugin.engine.align import reconstruct_half
from swiftres_plugin.engine.data.maps import Accumulator
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.given_poses import COARSE_A, fixed_scores, in_box_of, map_of_folds, small_engine
from swiftres_plugin.engine.maths.fourier import filter_shells, low_pass_gain
from swiftres_plugin.engine.maths.slices import empty_sums
from swiftres_plugin.engine.stages.classes import (
    changed,
    class_prior,
    difference_gain,
    entropy,
    evidence,
    matching,
    one_class_each,
    posterior,
)
from swiftres_plugin.engine.stages.postprocess import correlation
from swiftres_plugin.engine.stages.reconstruct import finished

FOLDS = 4
HALF_FOLDS = (slice(0, FOLDS // 2), slice(FOLDS // 2, FOLDS))
MOST_ROUNDS = 25
SETTLED = 0.005  # share of particles that still move
LEAST_SHARE = 0.01  # of a particle in a class, to be put into its map
LEAST_PARTICLES = 8.0  # of a class in a half: two for each fold
PERTURBED = 0.2  # deviation of a perturbation in units of the map's


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
class Round:
    """Shares (N, K) of the particles in the classes; evidence: mean log-likelihood; agreement: correlation (K,) between
    the halves of what sets each class apart; changes: part of the particles that moved."""

    shares: np.ndarray
    evidence: float
    agreement: np.ndarray
    changes: float

    @property
    def entropy(self) -> float:
        return entropy(self.shares)


@dataclass(frozen=True, eq=False, slots=True)
class HalfRound:
    """Log-likelihoods (n, K) of the particles of one half, and (K, m, m, m) what sets its classes apart."""

    scores: np.ndarray
    differences: np.ndarray


def classify(engine: Engine, setting: Setting, count: int, resolution_a: float, starts: int, seed: int) -> list[Round]:
    """Rounds that part the particles into `count` classes from nothing: the best of several random starts goes on.

    At first particles are compared to 20 A and go whole to their likeliest class: shares by probability would all become
    equal before anything is found. Then to `resolution_a` and as the setting says, where equal shares mean that there is
    nothing to find.
    """
    coarse_a, trials = max(resolution_a, COARSE_A), []
    for trial in range(starts):
        shares = started(engine, setting, count, coarse_a, np.random.default_rng([seed, 5, trial]))
        trials.append(rounds(engine, replace(setting, hard=True), shares, coarse_a))
        engine.reporter.message(f"Start {trial + 1} of {starts}: evidence {trials[-1][-1].evidence:.3f} a particle")
    best = max(trials, key=lambda trial: trial[-1].evidence)
    return best + rounds(engine, setting, best[-1].shares, resolution_a)


def rounds(engine: Engine, setting: Setting, shares: np.ndarray, resolution_a: float, most: int = MOST_ROUNDS) -> list[Round]:
    """Rounds to one resolution until hardly a particle moves."""
    small, window = small_engine(engine, setting.window, resolution_a)
    done: list[Round] = []
    while len(done) < most and (not done or done[-1].changes >= SETTLED):
        done.append(one_round(small, replace(setting, window=window), shares))
        shares = done[-1].shares
        sizes = ", ".join(f"{size:.0f}" for size in shares.sum(axis=0))
        engine.reporter.message(f"Classes to {resolution_a:.1f} A: {sizes} particles; {done[-1].changes:.1%} moved, "
                                f"entropy {done[-1].entropy:.2f}")
    return done


def one_round(engine: Engine, setting: Setting, shares: np.ndarray) -> Round:
    """New shares from the maps that the present ones make."""
    prior, found, told = class_prior(shares), np.zeros(shares.shape), np.zeros(shares.shape)
    halves = []
    for h in (0, 1):
        rows = np.flatnonzero(setting.half == h)
        halves.append(half_round(engine, setting, h, rows, shares))
        told[rows] = halves[h].scores
        found[rows] = posterior(halves[h].scores, prior)
    if setting.hard:
        found = one_class_each(found)
    moved = changed(shares, found)
    partner, agreement = matching(halves[0].differences, halves[1].differences)
    second = setting.half == 1
    found[second] = found[second][:, partner]
    return Round(found, evidence(told, prior), agreement, moved)


def half_round(engine: Engine, setting: Setting, h: int, rows: np.ndarray, shares: np.ndarray) -> HalfRound:
    """The particles at `rows` (of half `h`) against the maps of the folds that they are not in.

    What a particle leaves of itself in the map of all adds the same to its score in every class.
    """
    folds = [np.arange(f, len(rows), FOLDS) for f in range(FOLDS)]
    sums = [[fold_sums(engine, setting, h, rows[fold], shares[rows[fold], k]) for fold in folds]
            for k in range(shares.shape[1])]
    total = [reduce(add, of_fold) for of_fold in zip(*sums)]

    def seen(parts: Sequence[Accumulator]) -> torch.Tensor:
        return map_of_folds(engine, setting.window, parts)

    common, parts_of_all = seen(total), [seen(total[part]) for part in HALF_FOLDS]
    rest_of_all = [seen(others(total, number)) for number in range(FOLDS)]
    scores, differences = np.full((len(rows), len(sums)), -np.inf), []
    for k, own in enumerate(sums):
        if shares[rows, k].sum() < LEAST_PARTICLES:
            differences.append(np.zeros(common.shape, dtype=np.float32))
            continue
        parts = [seen(own[part]) - of_all for part, of_all in zip(HALF_FOLDS, parts_of_all)]
        gain = torch.from_numpy(difference_gain(correlation(*parts), 2 * (FOLDS - 1) / FOLDS)).float()
        differences.append(filter_shells((parts[0] + parts[1]) / 2, gain).cpu().numpy())
        for number, fold in enumerate(folds):
            apart = seen(others(own, number)) - rest_of_all[number]
            reference = common + filter_shells(apart, gain)
            scores[fold, k] = fixed_scores(engine, reference, setting.noise[h], rows[fold], setting.poses)[:, 0]
    return HalfRound(scores, np.stack(differences))


def others(sums: Sequence[Accumulator], number: int) -> list[Accumulator]:
    """All but one of the folds."""
    return [one for fold, one in enumerate(sums) if fold != number]


def fold_sums(engine: Engine, setting: Setting, h: int, rows: np.ndarray, share: np.ndarray) -> Accumulator:
    """Sums of the particles at `rows` with their `share` in a class."""
    kept = share > LEAST_SHARE
    if not kept.any():
        return finished(empty_sums(engine.spectra.band.last_shell, torch.device("cpu")), 0.0)
    rows, share = rows[kept], share[kept]
    weight = share if setting.trust is None else share * setting.trust[rows]
    return reconstruct_half(engine, setting.noise[h], rows, setting.poses.take(rows), f"classes, half {h + 1}", share=weight)


def started(engine: Engine, setting: Setting, count: int, resolution_a: float,
            generator: np.random.Generator) -> np.ndarray:
    """(N, K) shares, whole, against perturbed copies of the map of all: each half's map, the same perturbations.

    Every copy takes its part of the particles, since no copy's score is better than another's by more than chance.
    """
    small, window = small_engine(engine, setting.window, resolution_a)
    here = replace(setting, window=window)
    fields = perturbations(count, window, small.spectra.band.pixel_size_a, resolution_a, generator)
    shares = np.zeros((len(setting.half), count))
    for h in (0, 1):
        rows = np.flatnonzero(setting.half == h)
        common = map_of_folds(small, window, [fold_sums(small, here, h, rows, np.ones(len(rows)))])
        strength = PERTURBED * common.std()
        scores = np.concatenate([fixed_scores(small, common + strength * field.to(common), here.noise[h], rows, here.poses)
                                 for field in fields], axis=1)
        shares[rows] = one_class_each(scores - np.median(scores, axis=0))
    return shares


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


def perturbations(count: int, window: np.ndarray, pixel_size_a: float, resolution_a: float,
                  generator: np.random.Generator) -> torch.Tensor:
    """(K, n, n, n) smooth random fields of deviation one within the window, whose mean over the classes is zero."""
    n = len(window)
    gain = low_pass_gain(n, pixel_size_a, resolution_a)
    fields = torch.stack([filter_shells(torch.from_numpy(generator.standard_normal((n, n, n), dtype=np.float32)), gain)
                          * torch.from_numpy(window) for _ in range(count)])
    fields = fields - fields.mean(dim=0) if count > 1 else fields
    return fields / fields.std()
