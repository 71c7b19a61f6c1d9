"""Which images show the particle at all: their likelihoods beside those that the same search finds in noise.

Images without the particle (empty ice, false picks) still find a best pose, whose likelihood is that of chance. What
chance gives is measured (engine/chance.py). The share of images that are chance, and the probability of each one, follow as in
Efron (2004), J. Am. Stat. Assoc. 99, 96: local false discovery rate = (share x density of chance) / density of all.
"""
from __future__ import annotations

import numpy as np
from scipy.stats import gaussian_kde

DENSITY_POINTS = 256  # where densities are compared; in between they are interpolated
DENSITY_SAMPLE = 5000  # likelihoods that a density is estimated from
LEAST_CHANCE = 0.03  # share of chance images below which all are trusted: the estimate is no better
BEYOND_CHANCE = 0.99  # share of noise images that most others must fit better than, or none is told apart


def chance_share(likelihood: np.ndarray, chance: np.ndarray) -> float:
    """Share of images that fit by chance: twice those that fit worse than half of the noise images do."""
    return min(1.0, 2 * float(np.mean(likelihood < np.median(chance))))


def probability_of_particle(likelihood: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """(N,) probability that each image shows the particle, from its likelihood (N,) and those of noise images (M,).

    All ones where hardly any image fits by chance, and where chance and particle cannot be told apart. It never falls
    as the likelihood rises.
    """
    share = chance_share(likelihood, chance)
    others = likelihood[likelihood > np.median(chance)]
    if share < LEAST_CHANCE or not len(others) or np.median(others) < np.quantile(chance, BEYOND_CHANCE):
        return np.ones(len(likelihood))
    step = max(1, len(likelihood) // DENSITY_SAMPLE)
    points = np.linspace(min(likelihood.min(), chance.min()), likelihood.max(), DENSITY_POINTS)
    every, by_chance = gaussian_kde(np.sort(likelihood)[::step])(points), gaussian_kde(chance)(points)
    false = np.clip(share * by_chance / np.maximum(every, 1e-12), 0, 1)
    false = np.maximum.accumulate(false[::-1])[::-1]
    return 1 - np.interp(likelihood, points, false)
