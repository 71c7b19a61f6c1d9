"""Mixtures of points against cases whose answer is known: uneven parts, uneven precision, and nothing to find."""
from __future__ import annotations

import numpy as np

from swiftres_plugin.engine.maths.mixture import centres, find_mixture, likeliest, settled


def observations(points: np.ndarray, label: np.ndarray, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (N, D) seen under Gaussian noise whose precision 2 A differs from one observation to the next."""
    random, size = np.random.default_rng(seed), points.shape[1]
    root = random.normal(size=(len(label), size, size + 2))
    precision = root @ root.swapaxes(1, 2)
    noise = np.linalg.solve(np.linalg.cholesky(2 * precision).swapaxes(1, 2), random.normal(size=(len(label), size, 1)))
    return (precision @ (points[label][..., None] + noise))[..., 0], precision


def test_a_minority_of_a_twentieth_is_found_in_its_own_size():
    points = np.array([[0.1, 0.0], [-1.5, 1.0]])
    label = (np.arange(3000) % 20 == 0).astype(int)
    found = find_mixture(*observations(points, label), count=2, starts=5, seed=1)
    order = np.argsort(-found.part)
    np.testing.assert_allclose(found.part[order], [0.95, 0.05], atol=0.01)
    np.testing.assert_allclose(found.points[order], points, atol=0.1)
    assert np.mean(found.shares[:, order].argmax(axis=1) == label) > 0.98


def test_three_points_that_lie_on_a_line_are_three():
    points = np.array([[-2.0], [0.0], [2.0]])
    label = np.random.default_rng(2).choice(3, 2000, p=[0.5, 0.3, 0.2])
    found = find_mixture(*observations(points, label), count=3, starts=10, seed=1)
    order = np.argsort(found.points[:, 0])
    np.testing.assert_allclose(found.points[order], points, atol=0.15)
    np.testing.assert_allclose(found.part[order], [0.5, 0.3, 0.2], atol=0.04)


def test_where_all_are_at_the_origin_there_is_no_evidence():
    found = find_mixture(*observations(np.zeros((1, 2)), np.zeros(2000, int)), count=2, starts=5, seed=1)
    assert 0 <= found.evidence < 0.005  # of some four free numbers: half of each over 2,000 observations
    np.testing.assert_allclose(found.part @ found.points, 0, atol=0.05)


def test_evidence_never_falls_and_shares_add_up():
    linear, precision = observations(np.array([[1.0], [-1.0]]), np.arange(400) % 2)
    found = settled(linear, precision, np.array([[0.2], [0.1]]))
    assert found.evidence > settled(linear, precision, np.zeros((2, 1))).evidence
    np.testing.assert_allclose(found.shares.sum(axis=1), 1)


def test_of_one_observation_the_place_is_the_mean_under_the_prior():
    linear, precision = np.array([[3.0]]), np.array([[[1.0]]])  # at 3 with precision 2, and at 0 with precision 1
    np.testing.assert_allclose(likeliest(linear, precision), [[2.0]])
    np.testing.assert_allclose(centres(linear, precision, np.ones((1, 1))), [[2.0]])
