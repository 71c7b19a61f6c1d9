"""The self-test fails when the engine is wrong: its phantom has an answer that chance does not give."""
from __future__ import annotations

import numpy as np

from swiftres_plugin.engine import selftest
from swiftres_plugin.engine.compute import open_compute
from swiftres_plugin.engine.data.particles import Poses


def test_passes_here_and_in_time():
    result = selftest.run_self_test(open_compute("cpu", 1))
    assert result.passed
    assert result.angle_deg < 6 and result.resolution_a < 18


def test_does_not_pass_with_a_sign_error(monkeypatch):
    """Images shifted to the wrong side are what a wrong sign anywhere looks like."""
    right = selftest.projections
    monkeypatch.setattr(
        selftest, "projections", lambda blobs, poses: right(blobs, Poses(poses.image_to_volume, -poses.shift_a)))
    assert not selftest.run_self_test(open_compute("cpu", 1)).passed


def test_does_not_pass_with_the_other_hand(monkeypatch):
    """Projections of the mirrored phantom."""
    right = selftest.projections
    monkeypatch.setattr(selftest, "projections", lambda blobs, poses: right(blobs * [1, 1, -1], poses))
    assert not selftest.run_self_test(open_compute("cpu", 1)).passed


def test_map_and_projections_are_of_the_same_phantom():
    """The sum of the map over z is the projection seen from z."""
    blobs = np.random.default_rng(1).uniform(-1, 1, (14, 3)) * 30
    truth = selftest.phantom_map(blobs)
    seen = selftest.projections(blobs, Poses(np.eye(3)[None], np.zeros((1, 2))))[0]
    summed = truth.voxels.sum(axis=0)
    np.testing.assert_allclose(summed / summed.max(), seen / seen.max(), atol=1e-5)
