"""Posterior, prior and gain of classes against what they must be in cases that can be reckoned by hand."""
from __future__ import annotations

import numpy as np
import torch

from swiftres_plugin.engine.stages.classes import (
    LEAST_GAIN,
    certainty,
    changed,
    difference_gain,
    entropy,
    local_gain,
    matching,
    one_class_each,
    posterior,
    uncorrelated,
)


def test_the_posterior_is_bayes_rule():
    scores = np.log(np.array([[0.2, 0.6], [0.5, 0.1]]))
    prior = np.array([0.75, 0.25])
    joint = np.array([[0.15, 0.15], [0.375, 0.025]])
    np.testing.assert_allclose(posterior(scores, prior), joint / joint.sum(1, keepdims=True))


def test_large_scores_do_not_overflow_and_a_class_left_out_gets_nothing():
    found = posterior(np.array([[5000.0, 5001.0, -np.inf]]), np.array([0.5, 0.5, 0.0]))
    np.testing.assert_allclose(found, [[1 / (1 + np.e), np.e / (1 + np.e), 0]])


def test_certainty_is_what_sizes_leave_open():
    sure = np.eye(2)[[0, 0, 0, 1]]
    assert certainty(sure) == 1 and certainty(np.tile([0.9, 0.1], (5, 1))) == 0 and certainty(np.eye(2)[[0, 0]]) == 0
    assert abs(certainty(np.array([[0.9, 0.1], [0.1, 0.9]])) - (1 - entropy(np.array([[0.9, 0.1]])))) < 1e-12


def test_entropy_and_changes():
    sure, lost = np.eye(2)[[0, 1, 1, 0]], np.full((4, 2), 0.5)
    assert entropy(sure) == 0 and abs(entropy(lost) - 1) < 1e-12 and entropy(np.ones((4, 1))) == 0
    assert changed(sure, np.eye(2)[[0, 1, 1, 1]]) == 0.25
    np.testing.assert_array_equal(one_class_each(np.array([[0.4, 0.6], [0.9, 0.1]])), [[0, 1], [1, 0]])


def test_the_gain_is_that_of_wiener_and_never_nothing():
    curve = np.full(20, 0.5)  # signal-to-noise ratio of one in each set
    np.testing.assert_allclose(difference_gain(curve, sets=1.5), 1.5 / 2.5)
    np.testing.assert_allclose(difference_gain(-curve, sets=1.5), LEAST_GAIN)


def test_a_difference_in_one_place_is_kept_there_and_damped_elsewhere():
    random, place = np.random.default_rng(2), np.zeros((32, 32, 32), np.float32)
    place[2:18, 2:18, 2:18] = 1
    sets = [torch.from_numpy(place + 0.5 * random.standard_normal(place.shape, dtype=np.float32)) for _ in range(2)]
    gain = local_gain(sets[0], sets[1], sets=1.5, pixel_size_a=4.0).numpy()
    np.testing.assert_allclose(gain[9:11, 9:11, 9:11], 0.86, atol=0.03)  # a ratio of 4 in each set, so 6 of 7
    assert np.median(gain[24:, 24:, 24:]) < 0.15 and gain.min() >= 0 and gain.max() <= 1
    np.testing.assert_array_equal(local_gain(*(torch.zeros(4, 4, 4) for _ in range(2)), sets=1.5, pixel_size_a=4.0), 0)


def test_values_become_uncorrelated_and_span_the_same():
    values = np.random.default_rng(3).normal(size=(50, 3)) @ np.array([[3.0, 1, 0], [0, 0.1, 0.2], [0, 0, 5]]) + 4
    found = uncorrelated(values)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(found.T @ found / 50, np.eye(3), atol=1e-5)  # a ridge of 1e-9 of the largest
    centred = values - values.mean(axis=0)
    np.testing.assert_allclose(found @ np.linalg.lstsq(found, centred, rcond=None)[0], centred, atol=1e-5)


def test_classes_of_two_halves_are_told_by_their_maps():
    random = np.random.default_rng(1)
    maps = random.normal(size=(3, 4, 4, 4))
    order = np.array([2, 0, 1])
    partner, agreement = matching(maps, 0.3 * maps[order] + 0.05 * random.normal(size=maps.shape))
    np.testing.assert_array_equal(order[partner], [0, 1, 2])
    assert agreement.min() > 0.95
