"""A body of fourfold symmetry with one lobe: particles at random mates come to the right one; expansion writes every mate."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import Phantom, described, engine_over, images_of, plain_spectra, random_poses, write_data_set

from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.data.particles import ArraySource
from swiftres_plugin.engine.expand import expanded
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.maths.axes import symmetrised
from swiftres_plugin.engine.maths.geometry import rotation_angle
from swiftres_plugin.engine.maths.symmetry import symmetry_operators
from swiftres_plugin.engine.refine import draw_halves, input_poses
from swiftres_plugin.engine.relax import likest_operator, relax, scattered, settled
from swiftres_plugin.engine.relax_files import LEAST_AGREEMENT, asked

GROUP = symmetry_operators("C4")
BODY = Phantom(places_a=np.array([[22.0, 4, 6], [14, 6, -18]]), weights=np.array([1.0, 0.8])).symmetric(GROUP)
CHANNEL = Phantom(places_a=np.concatenate([BODY.places_a, [[34.0, 12, 20]]]), weights=np.append(BODY.weights, 0.9))
COUNT = 160


def particles_of_channel(noise: float) -> ArraySource:
    particles = described(random_poses(COUNT))
    return ArraySource(particles, images_of(CHANNEL, particles, noise))


def right(found, true) -> float:
    """Share within 20 degrees of the truth after the turn of the whole that makes it largest."""
    return max(float(np.mean(rotation_angle(operator @ found, true) < 0.35)) for operator in GROUP)


def test_particles_at_random_mates_come_to_the_right_one():
    source = particles_of_channel(noise=0.5)
    engine = engine_over(plain_spectra(source), initial_resolution=25.0)
    true, half = source.particles.poses.image_to_volume, draw_halves(source.particles, 1)
    start = scattered(input_poses(source.particles), GROUP, 1)
    assert right(start.image_to_volume, true) < 0.45
    found = relax(engine, asked(engine, GROUP, None, start, half), start, 14.0)
    assert right(found.poses.image_to_volume, true) >= 0.95
    # both halves have the lobe in one place
    for h in (0, 1):
        frames = [np.mean(rotation_angle(g @ found.poses.image_to_volume[half == h], true[half == h]) < 0.35) for g in GROUP]
        assert max(frames) > 0.9
    assert 0.8 < found.probability.mean() <= 1 and found.changes[-1] < 0.05
    assert found.agreement > 1.5 * LEAST_AGREEMENT


def test_folds_that_break_the_symmetry_in_two_ways_come_together():
    """Two folds of each half at the right mate, two half a turn from it: were all moved at once they would change places."""
    source = particles_of_channel(noise=0.5)
    engine = engine_over(plain_spectra(source), initial_resolution=25.0)
    half, poses = draw_halves(source.particles, 1), input_poses(source.particles)
    rotations = poses.image_to_volume.copy()
    for h in (0, 1):
        turned = np.flatnonzero(half == h)[1::2]  # folds 1 and 3 of 4
        rotations[turned] = GROUP[2] @ rotations[turned]
    start = replace(poses, image_to_volume=rotations)
    assert right(rotations, poses.image_to_volume) == 0.5
    last, changes = settled(engine, asked(engine, GROUP, None, start, half), start, 20.0, rounds=4)
    assert right(last.poses.image_to_volume, poses.image_to_volume) >= 0.95 and changes[-1] < 0.05


def test_halves_of_a_symmetric_body_agree_in_nothing_that_breaks_it():
    particles = described(random_poses(COUNT))
    engine = engine_over(plain_spectra(ArraySource(particles, images_of(BODY, particles, 0.5))), initial_resolution=25.0)
    start = scattered(input_poses(particles), GROUP, 1)
    question = asked(engine, GROUP, None, start, draw_halves(particles, 1))
    last, _ = settled(engine, question, start, 20.0, rounds=3)
    assert abs(last.agreement) < LEAST_AGREEMENT


def test_the_operator_between_two_maps_is_found():
    first = CHANNEL.map().voxels
    for operator in GROUP:
        second = replace(CHANNEL, places_a=CHANNEL.places_a @ operator).map().voxels  # turned back by it
        turn, agreement = likest_operator(first, second, GROUP)
        np.testing.assert_allclose(turn, operator)
        assert agreement > 0.95


def test_the_mean_over_a_group_is_symmetric():
    even = symmetrised(CHANNEL.map().voxels, GROUP)
    analytic = np.mean([replace(CHANNEL, places_a=CHANNEL.places_a @ g.T).map().voxels for g in GROUP], axis=0)
    assert np.abs(even - analytic).max() < 0.01 * analytic.max()


@pytest.mark.parametrize("name", ["C4", "D2", "T"])
def test_expansion_writes_every_mate_once(tmp_path, name):
    source = particles_of_channel(0.5)
    few = replace(source, particles=source.particles.take(np.arange(6)), images=source.images[:6])
    star = write_data_set(tmp_path, few)
    text = star.read_text().replace("_rlnOriginYAngst #11", "_rlnOriginYAngst #11\n_rlnBeamTiltClass #12")
    star.write_text("\n".join(line + " 7" if "@" in line else line for line in text.splitlines()) + "\n")
    assert main(["expand", "--particles", str(star), "--symmetry", name, "--output", str(tmp_path / "all.star")]) == 0
    group, found, before = symmetry_operators(name), read_particles(tmp_path / "all.star"), read_particles(star)
    order = len(group)
    assert len(found) == 6 * order and len(set(found.extra["swiftresParticleId"])) == len(found)
    assert set(found.extra["rlnBeamTiltClass"]) == {"7"}
    source_row = found.extra["swiftresSourceParticle"].astype(int) - 1
    np.testing.assert_array_equal(np.bincount(source_row), order)
    np.testing.assert_array_equal(found.slice_index, before.slice_index[source_row])
    for row in range(6):
        mates = found.poses.image_to_volume[source_row == row]
        expected = group @ before.poses.image_to_volume[row]
        assert rotation_angle(mates[:, None], expected[None]).min(axis=0).max() < 1e-5  # each mate is there
        assert len(set(found.half[source_row == row])) == 1  # and all in one half
    np.testing.assert_allclose(found.poses.shift_a, before.poses.shift_a[source_row], atol=1e-5)
    assert main(["expand", "--particles", str(tmp_path / "all.star"), "--symmetry", name, "--output",
                 str(tmp_path / "again.star")]) == 2


def test_expansion_keeps_the_halves_it_is_given():
    particles = replace(described(random_poses(5)), half=np.array([0, 1, 1, 0, 1]))
    np.testing.assert_array_equal(expanded(particles, GROUP, 1).half, np.repeat(particles.half, 4))


def test_relax_by_command_line(tmp_path):
    star = write_data_set(tmp_path, particles_of_channel(0.5))
    run = ["relax", "--particles", str(star), "--resolution", "14", "--threads", "1", "--device", "cpu"]
    assert main([*run, "--symmetry", "C1", "--output", str(tmp_path / "none")]) == 2
    assert main([*run, "--symmetry", "C4", "--output", str(tmp_path / "out")]) == 0
    found, true = read_particles(tmp_path / "out" / "particles.star"), read_particles(star)
    assert right(found.poses.image_to_volume, true.poses.image_to_volume) >= 0.9
    text = (tmp_path / "out" / "particles.star").read_text()
    assert "_swiftresRelaxedMate" in text and "_swiftresRelaxedProbability" in text
