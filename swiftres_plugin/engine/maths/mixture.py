"""A mixture of points in a space where every observation has a precision of its own.

What is seen of an observation at its true coordinates z is log p = 2 b . z - z^T A z, with b (N, D) and A (N, D, D) of its
own: a Gaussian about inv(A) b of precision 2 A. Each of K points holds a part of the observations. (A mixture under noise that
differs between observations: Bovy, Hogg and Roweis 2011, Ann. Appl. Stat. 5, 1657; here without a width of its components.)
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROUNDS = 100
SETTLED = 1e-5  # of the evidence, in one round
COUNTED = 2.0  # observations that every point holds before any is counted: none starves while the points are sought


@dataclass(frozen=True, eq=False, slots=True)
class Mixture:
    """points: (K, D); part: (K,) of the observations; shares: (N, K) posterior; evidence: mean log-likelihood over that of the
    origin."""

    points: np.ndarray
    part: np.ndarray
    shares: np.ndarray
    evidence: float


def find_mixture(linear: np.ndarray, precision: np.ndarray, count: int, starts: int, seed: int) -> Mixture:
    """The most likely of the mixtures of `count` points that EM reaches from points at observations drawn at random.

    linear: b (N, D); precision: A (N, D, D).
    """
    generator = np.random.default_rng(seed)
    where = likeliest(linear, precision)
    trials = [settled(linear, precision, where[generator.choice(len(where), count, replace=len(where) < count)])
              for _ in range(starts)]
    return max(trials, key=lambda trial: trial.evidence)


def likeliest(linear: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """(N, D) the likeliest coordinates of each observation by itself under a standard normal prior."""
    found: np.ndarray = np.linalg.solve(2 * precision + np.eye(linear.shape[1]), 2 * linear[..., None])[..., 0]
    return found


def settled(linear: np.ndarray, precision: np.ndarray, points: np.ndarray) -> Mixture:
    """Expectation and maximisation from `points` in equal parts."""
    found = told(linear, precision, points, np.full(len(points), 1 / len(points)))
    for _ in range(ROUNDS):
        before = found.evidence
        held = found.shares.sum(axis=0) + COUNTED
        found = told(linear, precision, centres(linear, precision, found.shares), held / held.sum())
        if abs(found.evidence - before) < SETTLED:
            break
    return found


def told(linear: np.ndarray, precision: np.ndarray, points: np.ndarray, part: np.ndarray) -> Mixture:
    """What the observations tell of these points."""
    score = 2 * linear @ points.T - np.einsum("kd,nde,ke->nk", points, precision, points, optimize=True) + np.log(part)
    top = score.max(axis=1, keepdims=True)
    share = np.exp(score - top)
    whole = share.sum(axis=1, keepdims=True)
    return Mixture(points, part, share / whole, float(np.mean(top + np.log(whole))))


def centres(linear: np.ndarray, precision: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(K, D) the likeliest points for the given shares, under a standard normal prior."""
    system = 2 * np.einsum("nk,nde->kde", shares, precision, optimize=True) + np.eye(linear.shape[1])
    found: np.ndarray = np.linalg.solve(system, 2 * (shares.T @ linear)[..., None])[..., 0]
    return found
