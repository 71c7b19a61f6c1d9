"""Posterior, prior and gain of classes against what they must be in cases that can be reckoned by hand."""
from __future__ import annotations

import numpy as np

from swiftres_plugin.engine.stages.classes import (
    LEAST_GAIN,
    changed,
    class_prior,
    difference_gain,
    entropy,
    evidence,
    matching,
    one_class_each,
    posterior,
)


def test_the_posterior_is_bayes_rule():
    scores = np.log(np.array([[0.2, 0.6], [0.5, 0.1]]))
    prior = np.array([0.75, 0.25])
    joint = np.array([[0.15, 0.15], [0.375, 0.025]])
    np.testing.assert_allclose(posterior(scores, prior), joint / joint.sum(1, keepdims=True))
    np.testing.assert_allclose(evidence(scores, prior), np.log(joint.sum(1)).mean())


def test_large_scores_do_not_overflow_and_a_class_left_out_gets_nothing():
    found = posterior(np.array([[5000.0, 5001.0, -np.inf]]), np.array([0.5, 0.5, 0.0]))
    np.testing.assert_allclose(found, [[1 / (1 + np.e), np.e / (1 + np.e), 0]])


def test_the_prior_keeps_a_small_class_alive_and_an_empty_one_empty():
    shares = np.zeros((1000, 3))
    shares[:999, 0], shares[999, 1] = 1, 1
    prior = class_prior(shares)
    assert prior[2] == 0 and abs(prior.sum() - 1) < 1e-12
    assert 0.25 < prior[1] < 0.26  # half of an equal part, whatever its size
    assert prior[0] > prior[1]


def test_entropy_and_changes():
    sure, lost = np.eye(2)[[0, 1, 1, 0]], np.full((4, 2), 0.5)
    assert entropy(sure) == 0 and abs(entropy(lost) - 1) < 1e-12 and entropy(np.ones((4, 1))) == 0
    assert changed(sure, np.eye(2)[[0, 1, 1, 1]]) == 0.25
    np.testing.assert_array_equal(one_class_each(np.array([[0.4, 0.6], [0.9, 0.1]])), [[0, 1], [1, 0]])


def test_the_gain_is_that_of_wiener_and_never_nothing():
    curve = np.full(20, 0.5)  # signal-to-noise ratio of one in each set
    np.testing.assert_allclose(difference_gain(curve, sets=1.5), 1.5 / 2.5)
    np.testing.assert_allclose(difference_gain(-curve, sets=1.5), LEAST_GAIN)


def test_classes_of_two_halves_are_told_by_their_maps():
    random = np.random.default_rng(1)
    maps = random.normal(size=(3, 4, 4, 4))
    order = np.array([2, 0, 1])
    partner, agreement = matching(maps, 0.3 * maps[order] + 0.05 * random.normal(size=maps.shape))
    np.testing.assert_array_equal(order[partner], [0, 1, 2])
    assert agreement.min() > 0.95
