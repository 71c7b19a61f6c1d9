"""A large set: its first iterations take a part of the particles, and the end is that of all of them."""
from __future__ import annotations

import json

import numpy as np
import pytest
from synthetic import Phantom, engine_over, particle_set, plain_spectra, write_data_set, write_volume

from swiftres_plugin import layout
from swiftres_plugin.engine.align import NEVER
from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.early import LEFT_OUT, drawn, early_state
from swiftres_plugin.engine.io.checkpoint import load_state, save_state
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.maths.symmetry import angular_errors, in_frame_of, symmetry_operators
from swiftres_plugin.engine.refine import by_row, next_state, start
from swiftres_plugin.engine.run import with_poses

COUNT, FIRST = 200, 80
OPTIONS = {"initial_resolution": 25.0, "search_resolution": 16.0, "max_shift": 14.0, "diameter": 110.0, "candidates": 8}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data_set(folder, particle_set(COUNT, 0.2, shift_a=4.0), with_poses=False)
    write_volume(folder / "map.mrc", Phantom().map().voxels)
    return folder


def run(folder, output, *more: str) -> int:
    options = [word for name, value in OPTIONS.items() for word in (f"--{name.replace('_', '-')}", f"{value:g}")]
    return main(["refine", "--particles", str(folder / "particles.star"), "--reference", str(folder / "map.mrc"),
                 "--output", str(output), *options, "--threads", "2", "--device", "cpu", *more])


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "run"
    assert run(data, output, "--first-particles", str(FIRST), "--iterations", "5") == 0
    return output


def test_the_first_two_iterations_take_a_part_and_the_others_all(finished):
    taken = [one["taken"] for one in json.loads((finished / layout.RUN).read_text())["iterations"]]
    assert taken == pytest.approx([FIRST / COUNT] * 2 + [1] * 3)


def test_every_particle_has_its_pose_in_the_end(data, finished):
    """As near to the truth as in a run that took all from the start."""
    truth = particle_set(COUNT, 0.2, shift_a=4.0).particles
    assert run(data, finished.parent / "whole", "--first-particles", "0", "--iterations", "5") == 0
    errors = []
    for folder in (finished, finished.parent / "whole"):
        found = read_particles(folder / layout.PARTICLES)
        assert len(found) == COUNT and np.isfinite(found.scores["log_likelihood"]).all()
        operators = symmetry_operators("C1")
        true, _, _ = in_frame_of(found.poses, truth.poses, operators)
        errors.append(np.rad2deg(np.median(angular_errors(found.poses, true, operators)[0])))
    assert errors[0] < 1.1 * errors[1], errors


def test_a_checkpoint_among_the_first_iterations_goes_on_as_if_never_stopped(tmp_path):
    engine = engine_over(plain_spectra(particle_set(COUNT, 0.1)), first_particles=FIRST, **OPTIONS)
    first = next_state(engine, start(engine, [Phantom().map()], None))
    assert first.unaligned
    saved = load_state(save_state(tmp_path, first, with_poses(engine.spectra.particles, first)))
    for one, two in zip(third_of(engine, first), third_of(engine, saved)):
        np.testing.assert_allclose(one, two, atol=1e-6)


def third_of(engine, state) -> tuple[np.ndarray, ...]:
    """Poses of the second and of the third iteration."""
    second = next_state(engine, state)
    return second.assignment.image_to_volume, next_state(engine, second).assignment.image_to_volume


def test_files_of_the_first_iterations_hold_the_particles_that_were_aligned(finished):
    counts = [len(read_particles(finished / layout.iteration_name(n) / layout.PARTICLES)) for n in (1, 2, 3, 4)]
    assert counts == [FIRST, FIRST, COUNT, COUNT]


@pytest.mark.parametrize("settings", [
    {"first_particles": 0}, {"first_particles": COUNT // 2}, {"first_particles": FIRST, "iterations": 3},
    {"first_particles": FIRST, "alignment": "local"}])
def test_all_take_part_where_they_are_few_or_a_part_would_not_do(settings):
    source = particle_set(COUNT, 0.3)
    engine = engine_over(plain_spectra(source), **OPTIONS, **settings)
    assert early_state(engine, start(engine, [Phantom().map()], None)) is None


def test_each_half_gives_half_of_the_first(data):
    half = np.arange(COUNT) % 2
    part = drawn(half, 30, seed=1)
    assert [(part == h).sum() for h in (LEFT_OUT, 0, 1)] == [COUNT - 60, 30, 30]
    assert np.all((part == half) | (part == LEFT_OUT)) and not np.array_equal(part, drawn(half, 30, seed=2))


def test_particles_of_neither_half_were_never_aligned(data):
    engine = engine_over(plain_spectra(particle_set(COUNT, 0.1)), first_particles=FIRST, **OPTIONS)
    state = start(engine, [Phantom().map()], None)
    after = next_state(engine, state)
    known = after.assignment.log_likelihood != NEVER
    assert known.sum() == FIRST and after.unaligned and np.array_equal(after.half, state.half)
    np.testing.assert_array_equal(by_row(np.full(3, LEFT_OUT), []).log_likelihood, NEVER)


def test_a_part_that_leads_nowhere_is_given_up(data):
    """Images of noise: their halves agree on nothing beyond the starting map, and all of them are taken instead."""
    source = particle_set(COUNT, 0.3)
    noise = np.random.default_rng(3).normal(size=source.images.shape).astype(np.float32)
    engine = engine_over(plain_spectra(type(source)(source.particles, noise)), first_particles=FIRST, **OPTIONS)
    after = next_state(engine, start(engine, [Phantom().map()], None))
    assert not after.unaligned and after.number == 1 and after.history[-1].taken == 1
