"""Images of noise are told from images of the particle by their likelihoods, and only where the two differ."""
from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from swiftres_plugin.engine.stages.trust import chance_share, probability_of_particle

CHANCE = (9.0, 4.0)  # mean and deviation of log-likelihoods that noise finds,
FOUND = (40.0, 8.0)  # and that particles do


def likelihoods(junk: float, count: int = 4000, found=FOUND):
    random = np.random.default_rng(3)
    is_junk = np.arange(count) < junk * count
    values = np.where(is_junk, random.normal(*CHANCE, count), random.normal(*found, count))
    return values, is_junk, random.normal(*CHANCE, count)


@pytest.mark.parametrize("junk", [0.1, 0.3, 0.5])
def test_share_and_probability(junk):
    """Two normal densities four deviations apart. The share is counted from 200 images or more: known to some 8 %."""
    values, is_junk, chance = likelihoods(junk)
    assert chance_share(values, chance) == pytest.approx(junk, rel=0.25)
    trust = probability_of_particle(values, chance)
    assert trust[is_junk].mean() < 0.05 and trust[~is_junk].mean() > 0.97


def test_probability_is_that_of_bayes():
    """Where densities overlap, it is what Bayes' rule gives with the true densities, but for their smoothing."""
    values, _, chance = likelihoods(0.3, 20000, found=(20.0, 5.0))
    trust = probability_of_particle(values, chance)
    one, other = 0.7 * norm.pdf(values, 20, 5), 0.3 * norm.pdf(values, *CHANCE)
    bayes = one / (one + other)
    central = (values > 5) & (values < 25)  # rare values below are trusted less than they deserve, never more
    assert np.abs(trust - bayes)[central].mean() < 0.06
    assert (np.diff(trust[np.argsort(values)]) >= 0).all()


@pytest.mark.parametrize("junk, found", [(0.0, FOUND), (1.0, FOUND), (0.3, (14.0, 4.0)), (0.9, FOUND)])
def test_all_are_trusted_where_nothing_can_be_told(junk, found):
    """No junk, nothing but junk, particles that fit hardly better, and so few particles that they could be its tail."""
    values, _, chance = likelihoods(junk, found=found)
    np.testing.assert_array_equal(probability_of_particle(values, chance), 1)


def test_noise_that_gained_by_being_in_the_map_is_not_split():
    """Junk alone, half a deviation above what new noise finds: none of it becomes the particle."""
    values, _, chance = likelihoods(1.0)
    np.testing.assert_array_equal(probability_of_particle(values + 0.5 * CHANCE[1], chance), 1)
