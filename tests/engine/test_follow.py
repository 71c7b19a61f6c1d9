"""A refinement takes in the particles that its file gains, and leaves those it had as they were."""
from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import Phantom, assignment_of, described, particle_set, random_poses, write_data_set, write_volume

from swiftres_plugin import layout
from swiftres_plugin.engine.align import NEVER, to_search
from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.data.particles import ArraySource
from swiftres_plugin.engine.data.spectra import RowsInPieces
from swiftres_plugin.engine.data.state import IterationPlan, RefinementState
from swiftres_plugin.engine.follow import Stream, drawn, images, sentinel, with_new, with_room
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.maths.symmetry import angular_errors, in_frame_of, symmetry_operators
from swiftres_plugin.engine.report import SilentReporter, TeeReporter
from swiftres_plugin.errors import StateError
from swiftres_plugin.settings import StreamSettings

FIRST, ALL = 80, 150


def first_of(source: ArraySource, count: int) -> ArraySource:
    return ArraySource(source.particles.take(np.arange(count)), source.images)


def star_of(folder: Path, source: ArraySource, count: int) -> None:
    """particles.star with the first `count`, put in place at once; the stack holds all."""
    (folder / "new").mkdir(exist_ok=True)
    write_data_set(folder / "new", first_of(source, count), with_poses=False)
    for name in ("particles.mrcs", "particles.star"):
        os.replace(folder / "new" / name, folder / name)


def errors_deg(found, true) -> np.ndarray:
    operators = symmetry_operators("C1")
    carried, _, _ = in_frame_of(found.poses, true.poses, operators)
    return np.rad2deg(angular_errors(found.poses, carried, operators)[0])


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A run whose file grows once its first iteration is written; then, resumed, once more. Folder and truth."""
    folder = tmp_path_factory.mktemp("followed")
    source = particle_set(ALL, noise=0.3, shift_a=4.0)
    write_volume(folder / "map.mrc", Phantom().map().voxels)
    star_of(folder, source, FIRST)
    run = folder / "run"

    def grow() -> None:
        until = time.monotonic() + 300
        while not (run / "it001" / layout.STATE).exists() and time.monotonic() < until:
            time.sleep(0.02)
        star_of(folder, source, ALL - 10)

    growing = threading.Thread(target=grow, daemon=True)
    growing.start()
    assert main(["refine", "--particles", str(folder / "particles.star"), "--reference", str(folder / "map.mrc"), "--output",
                 str(run), "--initial-resolution", "20", "--search-resolution", "16", "--max-shift", "14", "--diameter", "100",
                 "--threads", "2", "--device", "cpu", "--iterations", "1", "--follow", "--follow-until", str(ALL - 10)]) == 0
    growing.join()
    before = read_particles(run / layout.PARTICLES)
    star_of(folder, source, ALL)
    assert main(["refine", "--resume", str(run), "--follow-until", str(ALL)]) == 0
    return run, source.particles, before


def test_all_particles_come_in_and_are_found(followed):
    run, true, before = followed
    found = read_particles(run / layout.PARTICLES)
    assert (len(before), len(found)) == (ALL - 10, ALL)
    errors = errors_deg(found, true)
    assert np.median(errors) < 3 and np.median(errors[FIRST:]) < 4
    assert np.mean(errors[ALL - 10:] < 12) > 0.7  # of the ten that came after the resume, at 21 A


def test_particles_keep_their_half_and_their_place(followed):
    run, _, before = followed
    first, last = read_particles(run / "it001" / layout.PARTICLES), read_particles(run / layout.PARTICLES)
    assert len(first) == FIRST
    np.testing.assert_array_equal(before.half[:FIRST], first.half)
    np.testing.assert_array_equal(last.half[:ALL - 10], before.half)
    assert np.bincount(last.half).tolist() == [ALL // 2, ALL // 2]
    assert images(last)[:FIRST] == images(first)


# ------------------------------------------------------------------------------------------------ its parts

def test_known_particles_come_first_whatever_the_order_of_the_file():
    everyone = described(random_poses(6))
    known, found = everyone.take(np.array([4, 1])), everyone.take(np.array([5, 4, 3, 1, 0]))
    joined = with_new(known, found)
    assert joined.slice_index.tolist() == [4, 1, 5, 3, 0] and joined.particle_id.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(StateError, match="no longer in its file"):
        with_new(found, known)
    with pytest.raises(StateError, match="optics groups"):
        with_new(known, replace(found, optics=(replace(found.optics[0], voltage_kv=200.0),)))


def test_new_particles_even_the_halves_out_and_are_searched():
    particles = described(random_poses(9), groups=2)
    half = np.array([0, 0, 0, 1])
    assert np.bincount(np.concatenate([half, drawn(half, particles, 1)])).tolist() == [5, 4]
    noise = np.stack([np.full((1, 4), 2.0), np.full((1, 4), 6.0)])
    state = RefinementState(3, (), noise, half, assignment_of(random_poses(4)), at_rest=True,
                            settled=np.ones(4, dtype=bool))
    grown = with_room(state, particles, 1)
    np.testing.assert_array_equal(grown.half[:4], half)
    assert grown.noise.shape == (2, 2, 4) and (grown.noise[1, 1] == 6).all() and not grown.at_rest
    np.testing.assert_array_equal(grown.assignment.log_likelihood[4:], np.full(5, NEVER))
    assert grown.settled.tolist() == [True] * 4 + [False] * 5


def test_only_the_new_ones_are_searched(monkeypatch):
    state = with_room(RefinementState(3, (), np.ones((2, 1, 4)), np.arange(4) % 2, assignment_of(random_poses(4))),
                      described(random_poses(6)), 1)
    plan = IterationPlan(4, 9, False, 6, 0.2, 5.0, 14.0)
    assert to_search(None, np.array([1, 3, 4, 5]), plan, state.assignment).tolist() == [False, False, True, True]


def test_pieces_read_as_one():
    whole = torch.arange(60).view(10, 6)
    pieces = RowsInPieces([RowsInPieces([whole[:3], whole[3:4]]), whole[4:]])
    assert len(pieces) == 10
    for rows in (torch.tensor([9, 0, 3, 3, 5]), slice(2, 6), slice(5, 9)):
        np.testing.assert_array_equal(pieces[rows, :4], whole[rows, :4])


def test_a_file_being_written_is_waited_for_and_an_end_is_seen(tmp_path):
    source = particle_set(8)
    star_of(tmp_path, source, 6)
    known, told = read_particles(tmp_path / "particles.star"), []
    reporter = TeeReporter()
    reporter.message = told.append
    stream = Stream(tmp_path / "particles.star", StreamSettings(follow_until=8), reporter, time.monotonic())
    assert stream.grown(known) is None and not stream.over(6) and stream.over(8)
    text = stream.path.read_text()
    stream.path.write_text(text[:text.rindex("@")])  # half a line
    assert stream.grown(known) is None and stream.grown(known) is None
    assert len(told) == 1 and "Waiting for the particles" in told[0]
    star_of(tmp_path, source, 8)
    assert len(stream.grown(known)) == 8
    sentinel(stream.path).touch()
    assert stream.over(6)


def test_an_idle_file_ends_the_wait():
    stream = Stream(Path("none.star"), StreamSettings(follow_idle=1.0), SilentReporter(), time.monotonic() - 61)
    assert stream.over(5)
    assert not replace(stream, came_s=time.monotonic() - 59).over(5)
