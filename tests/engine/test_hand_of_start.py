"""A result comes in the hand of its starting map, where both halves say that this is the other one."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import Phantom, assignment_of, engine_over, particle_set, plain_spectra, random_poses

from swiftres_plugin.engine.data.maps import HalfMaps, Map
from swiftres_plugin.engine.data.state import ClassState, RefinementState
from swiftres_plugin.engine.hand_of_start import LEAST_GAIN, gain_by_inversion, in_hand_of_start
from swiftres_plugin.engine.hands import inverted

PHANTOM = Phantom()
OTHER = replace(PHANTOM, places_a=-PHANTOM.places_a)
COUNT = 12


def start_with(trace: float) -> Map:
    """A map that is the same in both hands but for a trace of the phantom's own."""
    own, other = (torch.from_numpy(one.map().voxels) for one in (PHANTOM, OTHER))
    return replace(PHANTOM.map(), voxels=(0.5 * (own + other) + trace * (own - other)).numpy())


def reached(phantom: Phantom, seed: int = 1) -> RefinementState:
    """A refinement's end with halves of the phantom, each with noise of its own."""
    random = np.random.default_rng(seed)
    halves = [replace(phantom.map(), voxels=phantom.map().voxels + random.normal(0, 0.05, (32,) * 3).astype(np.float32))
              for _ in range(2)]
    voxels = torch.from_numpy(phantom.map().voxels)
    one = ClassState((voxels, voxels), 8, 12.0, HalfMaps(*halves), voxels.numpy(), (voxels > 0.1).float().numpy())
    poses = assignment_of(random_poses(COUNT))
    return RefinementState(3, (one,), np.ones((2, 1, 17)), np.arange(COUNT) % 2,
                           replace(poses, class_id=np.zeros(COUNT, np.int64)), at_rest=True)


def engine_with(reporter: object = None, mask: np.ndarray | None = None, **settings: object):
    engine = engine_over(plain_spectra(particle_set(4)), user_mask=mask, initial_resolution=30.0, **settings)
    return replace(engine, reporter=reporter) if reporter else engine


@pytest.mark.parametrize("trace", [0.02, 0.5])
def test_the_other_hand_is_inverted_with_its_poses(trace):
    """Every map, and the poses so that projections of what is there stay what they were."""
    before = reached(OTHER)
    after = in_hand_of_start(engine_with(), before, [start_with(trace)])
    (one,), (was,) = after.classes, before.classes
    pairs = [(one.combined, was.combined), (one.mask, was.mask), (one.references[1].numpy(), was.references[1].numpy()),
             (one.halves.first.voxels, was.halves.first.voxels)]
    for found, given in pairs:
        np.testing.assert_array_equal(found, inverted(torch.from_numpy(given)).numpy())
    assert one.fsc is was.fsc and np.array_equal(after.assignment.shift_a, before.assignment.shift_a)
    poses, turned = random_poses(COUNT), replace(random_poses(COUNT), image_to_volume=after.assignment.image_to_volume)
    assert PHANTOM.projections(turned) == pytest.approx(OTHER.projections(poses), abs=1e-9)


@pytest.mark.parametrize("trace, settings", [(0.02, {}), (0.5, {}), (0.0, {}), (-0.02, {"alignment": "local"})])
def test_the_right_hand_stays_and_so_does_one_that_nothing_tells(trace, settings):
    before = reached(PHANTOM)
    assert in_hand_of_start(engine_with(**settings), before, [start_with(trace)]) is before


def test_a_mask_that_was_given_keeps_the_frame():
    before = reached(OTHER)
    assert in_hand_of_start(engine_with(mask=np.ones((32,) * 3, np.float32)), before, [start_with(0.5)]) is before


def test_a_start_that_is_the_same_in_both_hands_tells_nothing():
    gains = [gain_by_inversion(torch.from_numpy(start_with(0.0).voxels), torch.from_numpy(one.map().voxels))
             for one in (PHANTOM, OTHER)]
    assert np.abs(gains).max() < 0.1 * LEAST_GAIN


def test_it_is_told():
    class Kept:
        def __init__(self) -> None:
            self.said: list[str] = []

        def message(self, text: str) -> None:
            self.said.append(text)

    kept = Kept()
    in_hand_of_start(engine_with(kept), reached(OTHER), [start_with(0.1)])
    assert len(kept.said) == 1 and "inverted" in kept.said[0]


def test_each_class_goes_by_its_own_start():
    one, other = reached(PHANTOM), reached(OTHER)
    class_id = np.arange(COUNT) % 2
    both = replace(one, classes=(*one.classes, *other.classes), assignment=replace(one.assignment, class_id=class_id))
    after = in_hand_of_start(engine_with(), both, [start_with(0.1), start_with(0.1)])
    changed = np.any(after.assignment.image_to_volume != both.assignment.image_to_volume, axis=(1, 2))
    assert after.classes[0] is both.classes[0] and np.array_equal(changed, class_id == 1)
