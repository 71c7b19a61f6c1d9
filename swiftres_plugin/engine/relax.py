"""Symmetry relaxation: which of its symmetry mates each particle is, where a part of the structure breaks the symmetry.

A refinement under a group G, or in C1 from a map with that symmetry, finds each pose up to an operator of G. Here the mates
S @ R of every pose are compared with maps in C1 by the exact likelihood, the particle is put at the likeliest, the maps are
made anew, and so on until hardly any particle changes. Two things keep this from finding what is not there:

* A particle is never compared with a map that it is in: each half of the particles is divided in folds, and those of a fold
  see the map of the other folds. (A map of few particles remembers each of them at the mate where it was put, and
  would hold it there.)
* The halves do not see each other's maps. Each breaks the symmetry by itself, perhaps another way round; which of the |G|
  ways is all that passes between them: the second half is turned by the operator under which its map is most like the first.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from swiftres_plugin.engine.data.maps import Accumulator
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.given_poses import (
    COARSE_A,
    FOLDS,
    damping,
    fixed_scores,
    in_box_of,
    map_of_folds,
    small_engine,
)
from swiftres_plugin.engine.insertion import reconstruct_half
from swiftres_plugin.engine.maths.axes import rotated, symmetrised

MOST_ROUNDS = 12
SETTLED = 0.01  # share of particles that still change


@dataclass(frozen=True, eq=False, slots=True)
class Relaxation:
    """Poses at the chosen mates, with each one's posterior probability (N,) among the mates; for every round the share of
    particles that changed; and how well the halves, which do not see each other, agree in what breaks the symmetry
    (a correlation)."""

    poses: Assignment
    probability: np.ndarray
    changes: tuple[float, ...]
    agreement: float


@dataclass(frozen=True, eq=False, slots=True)
class Round:
    """Poses at the chosen mates, the scores (N, |G|) that chose them, and the agreement of the halves."""

    poses: Assignment
    scores: np.ndarray
    agreement: float


@dataclass(frozen=True, eq=False, slots=True)
class Question:
    """What is asked: the group (|G|, 3, 3), the noise power (2, groups, S) and half set (N,) of the particles, and the
    window (n, n, n) that the maps are seen through."""

    operators: np.ndarray
    noise: np.ndarray
    half: np.ndarray
    window: np.ndarray


def relax(engine: Engine, question: Question, poses: Assignment, resolution_a: float,
          reference: torch.Tensor | None = None) -> Relaxation:
    """Put each particle at one of the mates of its pose.

    With a `reference` in C1 (on the particles' scale) the first choice is made against it; without one the poses are taken
    as they are, which breaks the symmetry only if the mates among them are mixed (`scattered`).
    """
    changes: list[float] = []
    if reference is not None:
        small, _ = in_small_box(engine, question, resolution_a)
        scores = np.zeros((len(poses.class_id), len(question.operators)))
        for h in (0, 1):
            rows = np.flatnonzero(question.half == h)
            scores[rows] = fixed_scores(small, in_box_of(small, reference), question.noise[h], rows, poses,
                                        question.operators)
        poses = chosen(poses, question.operators, scores)
    # a part that is not yet in one place shows at low resolution first
    for limit_a in dict.fromkeys((max(resolution_a, COARSE_A), resolution_a)):
        last, part = settled(engine, question, poses, limit_a, MOST_ROUNDS)
        poses, changes = last.poses, changes + part
    top = last.scores.max(axis=1, keepdims=True)
    return Relaxation(poses, 1 / np.exp(last.scores - top).sum(axis=1), tuple(changes), last.agreement)


def settled(engine: Engine, question: Question, poses: Assignment, limit_a: float,
            rounds: int) -> tuple[Round, list[float]]:
    """Rounds to one resolution until hardly a particle changes: the last of them, and the shares of changes."""
    (small, asked), changes = in_small_box(engine, question, limit_a), []
    for _ in range(rounds):
        last = one_round(small, asked, poses)
        poses = last.poses
        changes.append(float(np.mean(last.scores.argmax(axis=1) != 0)))
        engine.reporter.message(f"Symmetry relaxation to {limit_a:.1f} A: {changes[-1]:.1%} of the particles changed mate; "
                                f"agreement of the halves {last.agreement:.2f}")
        if changes[-1] < SETTLED:
            break
    return last, changes


def scattered(poses: Assignment, operators: np.ndarray, seed: int) -> Assignment:
    """Each pose at a mate drawn at random: what an asymmetric unit says of them is forgotten."""
    drawn = np.random.default_rng([seed, 4]).integers(len(operators), size=len(poses.class_id))
    return replace(poses, image_to_volume=operators[drawn] @ poses.image_to_volume)


def chosen(poses: Assignment, operators: np.ndarray, scores: np.ndarray) -> Assignment:
    """Each pose at its likeliest mate."""
    return replace(poses, image_to_volume=operators[scores.argmax(axis=1)] @ poses.image_to_volume)


def in_small_box(engine: Engine, question: Question, resolution_a: float) -> tuple[Engine, Question]:
    """Engine (in C1) and question on the shells up to a resolution: maps take as little memory and time as these need."""
    small, window = small_engine(engine, question.window, resolution_a)
    return replace(small, operators=np.eye(3)[None]), replace(question, window=window)


def one_round(engine: Engine, question: Question, poses: Assignment) -> Round:
    """Every particle at the mate that is likeliest against the maps of the present ones."""
    scores = np.zeros((len(poses.class_id), len(question.operators)))
    uneven = [half_round(engine, question, h, poses, scores) for h in (0, 1)]
    turn, agreement = likest_operator(uneven[0], uneven[1], question.operators)
    poses = chosen(poses, question.operators, scores)
    second = question.half == 1
    rotations = np.where(second[:, None, None], turn @ poses.image_to_volume, poses.image_to_volume)
    return Round(replace(poses, image_to_volume=rotations), scores, agreement)


def half_round(engine: Engine, question: Question, h: int, poses: Assignment, scores: np.ndarray) -> np.ndarray:
    """Fill the rows of half `h` in `scores` (N, |G|); (m, m, m) what broke the symmetry of its map before.

    Folds go one after another, each against the others where these have gone: did all go at once, two pairs of folds that
    break the symmetry in two ways would change places for ever.
    """
    rows = np.flatnonzero(question.half == h)
    folds = [rows[f::FOLDS] for f in range(FOLDS)]

    def summed(fold: np.ndarray, where: Assignment) -> Accumulator:
        return reconstruct_half(engine, question.noise[h], fold, where, f"relaxation, half {h + 1}")

    sums = [summed(fold, poses.take(fold)) for fold in folds]
    even, parts = parted(engine, question, sums)
    # the signal of what breaks the symmetry is far below that of the map, which the symmetric part makes
    damped = damping(parts, engine.spectra.band.pixel_size_a)
    for number, fold in enumerate(folds):
        rest = map_of_folds(engine, question.window, [one for f, one in enumerate(sums) if f != number]) - even
        scores[fold] = fixed_scores(engine, even + damped(rest), question.noise[h], fold, poses,
                                    question.operators)
        if number < FOLDS - 1:
            sums[number] = summed(fold, chosen(poses.take(fold), question.operators, scores[fold]))
    return damped((parts[0] + parts[1]) / 2).cpu().numpy()


def parted(engine: Engine, question: Question,
           sums: Sequence[Accumulator]) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """What all mates share of a half's map, and the rest of its folds' first and second half, each by itself.

    What a particle leaves of itself in the shared part adds the same to the score of each of its mates.
    """
    middle = len(sums) // 2
    wholes = [map_of_folds(engine, question.window, part) for part in (sums[:middle], sums[middle:])]
    first, second = (torch.from_numpy(symmetrised(whole.cpu().numpy(), question.operators)).to(whole.device)
                     for whole in wholes)
    return (first + second) / 2, (wholes[0] - first, wholes[1] - second)


def likest_operator(first: np.ndarray, second: np.ndarray, operators: np.ndarray) -> tuple[np.ndarray, float]:
    """(3, 3) the operator that turns the second map to be most like the first (the identity among equals), and their
    correlation then."""
    likeness = [float((first * rotated(second, operator, order=1)).sum()) for operator in operators]
    best = int(np.argmax(likeness))
    return operators[best], likeness[best] / max(float(np.linalg.norm(first) * np.linalg.norm(second)), 1e-30)
