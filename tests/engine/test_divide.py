"""A refinement at rest is divided into classes, which go on as its classes."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import (
    Phantom,
    assignment_of,
    described,
    engine_over,
    images_of,
    plain_spectra,
    random_poses,
    write_data_set,
    write_volume,
)
from test_classify import BODY, WITH_LOBE, mixed, right

from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.data.particles import ArraySource
from swiftres_plugin.engine.data.state import RefinementState
from swiftres_plugin.engine.divide import (
    changes_classes,
    counted,
    of_one_structure,
    wants_classes,
    weight_in_class,
    with_classes,
)
from swiftres_plugin.engine.plan import plan_iteration
from swiftres_plugin.engine.refine import diameter, in_classes, iterate, start

LOCAL = {"alignment": "local", "initial_resolution": 16.0, "diameter": 110.0, "classes": 2}


@pytest.fixture(scope="module")
def divided():
    """A state of two classes, the engine, and the true classes."""
    source, label = mixed(0.3)
    engine = engine_over(plain_spectra(source), **LOCAL)
    state = start(engine, [BODY.map()], None)
    rest = replace(next_state(engine, state), at_rest=True)
    assert wants_classes(engine, rest) and not wants_classes(engine, state)
    return engine, in_classes(engine, rest), label


def next_state(engine, state: RefinementState) -> RefinementState:
    return iterate(engine, state, plan_iteration(state, engine.spectra.band, diameter(engine, state), engine.settings))


def test_the_structure_at_rest_is_divided(divided):
    engine, state, label = divided
    assert len(state.classes) == 2 and not state.at_rest and not wants_classes(engine, state)
    assert right(state.shares, label) > 0.95
    np.testing.assert_array_equal(state.assignment.class_id, state.shares.argmax(axis=1))
    first, second = (one.combined for one in state.classes)
    lobe = WITH_LOBE.map().voxels - BODY.map().voxels
    assert abs(np.corrcoef((first - second).ravel(), lobe.ravel())[0, 1]) > 0.6


def test_conformations_of_one_structure_are_parted_anew(divided):
    """Where an alignment told the classes apart, one particle in seven wrongly."""
    engine, state, label = divided
    wrong = np.where(np.arange(len(label)) % 7 == 0, 1 - label, label)
    aligned = replace(state, shares=None, at_rest=True, assignment=replace(state.assignment, class_id=wrong))
    assert of_one_structure(aligned) and changes_classes(engine, aligned) and not changes_classes(engine, state)
    after = in_classes(engine, aligned)
    assert right(after.shares, label) > 0.95 and not after.at_rest
    other = replace(state.classes[1], combined=-state.classes[1].combined)
    assert not of_one_structure(replace(aligned, classes=(state.classes[0], other)))


def test_classes_hold_through_an_alignment(divided):
    engine, state, label = divided
    after = next_state(engine, state)
    assert right(after.shares, label) > 0.95
    assert after.history[-1].class_changes < 0.05 and 0 <= after.history[-1].class_entropy < 0.2
    assert sum(after.history[-1].class_sizes) == len(label)


def test_shares_too_small_to_matter_are_left_out():
    kept = counted(np.array([[0.995, 0.005], [0.5, 0.5]]))
    np.testing.assert_array_equal(kept, [[1, 0], [0.5, 0.5]])


def test_a_particle_weighs_its_share_or_belongs_whole():
    poses = assignment_of(random_poses(3))
    shares = np.array([[0.3, 0.7], [1, 0], [0.5, 0.5]])
    state = RefinementState(1, (), np.zeros(0), np.zeros(3), poses, shares=shares)
    named = with_classes(poses, shares)
    assert named.class_id.tolist() == [1, 0, 0] and with_classes(poses, None) is poses
    np.testing.assert_array_equal(weight_in_class(state, named, 1), shares[:, 1])
    np.testing.assert_array_equal(weight_in_class(replace(state, shares=None), named, 1), [1, 0, 0])


def test_classes_and_several_starting_maps_exclude_each_other(tmp_path):
    particles = described(random_poses(8))
    star = write_data_set(tmp_path, ArraySource(particles, images_of(Phantom(), particles, 0.2)))
    maps = [str(write_volume(tmp_path / f"{n}.mrc", one.map().voxels)) for n, one in enumerate((BODY, WITH_LOBE))]
    assert main(["refine", "--particles", str(star), "--reference", maps[0], "--reference", maps[1], "--classes", "2",
                 "--output", str(tmp_path / "run")]) == 2
