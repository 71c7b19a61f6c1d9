"""Which class a particle is of: posterior and prior, how far a class's map may leave the map of all, and which class is which.

The scheme stands against the two ways in which classes collapse, and never sets a floor under a class's size:

* Attraction. The map of a large class shows what all classes share more clearly, and so fits every particle better than that
  of a small class. Here each class is compared as the map of all particles plus what sets the class apart, damped by how far
  that part repeats itself between two sets of its own particles (`difference_gain`).
* The prior. The share of a class among the particles, taken at face value, takes from a small class the particles that stand
  between; the half of it, with a uniform half, can take at most a factor 2 K (`class_prior`).

That a particle is not compared with a map it is in is left to engine/classify.py.
"""
from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

UNIFORM = 0.5  # part of the prior that does not look at sizes
LEAST_GAIN = 0.05  # of a difference that does not repeat itself yet, or classes that begin alike would stay so


def class_prior(shares: np.ndarray) -> np.ndarray:
    """(K,) between the classes' part of the particles, shares (N, K), and equal parts; an empty class has none."""
    size = shares.sum(axis=0)
    alive = size > 0
    prior = (1 - UNIFORM) * size / size.sum() + UNIFORM * alive / alive.sum()
    return prior / prior.sum()


def posterior(scores: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """(N, K) probabilities of the classes from log-likelihoods (N, K) and their prior (K,); -inf leaves a class out."""
    with np.errstate(divide="ignore"):
        weighted = scores + np.log(prior)
    share = np.exp(weighted - weighted.max(axis=1, keepdims=True))
    return share / share.sum(axis=1, keepdims=True)


def evidence(scores: np.ndarray, prior: np.ndarray) -> float:
    """Mean log-likelihood of the particles over all classes."""
    with np.errstate(divide="ignore"):
        weighted = scores + np.log(prior)
    top = weighted.max(axis=1)
    return float(np.mean(top + np.log(np.exp(weighted - top[:, None]).sum(axis=1))))


def one_class_each(shares: np.ndarray) -> np.ndarray:
    """(N, K) the whole of each particle in its likeliest class."""
    return np.eye(shares.shape[1])[shares.argmax(axis=1)]


def entropy(shares: np.ndarray) -> float:
    """Mean entropy of the class posterior, in units of log K: 0 when every particle is sure, 1 when none is."""
    if shares.shape[1] < 2:
        return 0.0
    return float(-(shares * np.log(shares.clip(min=1e-30))).sum(axis=1).mean() / np.log(shares.shape[1]))


def changed(before: np.ndarray, after: np.ndarray) -> float:
    """Part of the particles (N, K) that moved to another class."""
    return float(np.abs(after - before).sum(axis=1).mean() / 2)


def difference_gain(curve: np.ndarray, sets: float) -> np.ndarray:
    """Gain (S,) per shell of a difference map, from its Fourier shell correlation (S,) between two sets of particles.

    sets: how many such sets the map to be damped is made of. The gain is Wiener's, SNR / (1 + SNR).
    """
    smooth = np.convolve(np.pad(curve, 1, mode="edge"), np.ones(3) / 3, mode="valid").clip(0, 0.99)
    ratio = smooth / (1 - smooth) * sets
    return np.maximum(ratio / (1 + ratio), LEAST_GAIN)


def matching(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K,) the class of `second` that is each class of `first`, by their maps (K, ...), and the correlation of each pair."""
    flat = [maps.reshape(len(maps), -1).astype(np.float64) for maps in (first, second)]
    unit = [maps / np.linalg.norm(maps, axis=1, keepdims=True).clip(min=1e-30) for maps in flat]
    likeness = unit[0] @ unit[1].T
    _, partner = linear_sum_assignment(-likeness)
    return partner, likeness[np.arange(len(partner)), partner]
