"""`swiftres align`: poses against a map that stays as it is."""
from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from synthetic import PIXEL_A, PLACES_A, Phantom, particle_set, write_data_set, write_volume

from swiftres_plugin import layout
from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.data.particles import ArraySource, Poses
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.maths.symmetry import angular_errors, symmetry_operators

COUNT = 60
OPTIONS = ["--resolution", "12", "--max-shift", "14", "--diameter", "100", "--threads", "1", "--device", "cpu"]
COARSE = ["--resolution", "24", "--search-resolution", "24", "--recall-sample", "0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    source = particle_set(COUNT, noise=0.3, shift_a=4.0)
    write_data_set(folder, source, with_poses=False)
    write_volume(folder / "map.mrc", Phantom().map().voxels)
    write_volume(folder / "other.mrc", Phantom(places_a=0.7 * PLACES_A).map().voxels)
    return folder, source


def align(folder, output, *more):
    return main(["align", "--particles", str(folder / "particles.star"), "--reference", str(folder / "map.mrc"),
                 "--output", str(output), *OPTIONS, *more])


def pose_errors(output, true):
    """Median differences from the true poses, in degrees and angstroms: the map stands in the frame of the truth."""
    angles, shifts = angular_errors(read_particles(output / layout.PARTICLES).poses, true, symmetry_operators("C1"))
    return float(np.rad2deg(np.median(angles))), float(np.median(shifts))


def test_a_search_finds_the_truth(data, tmp_path):
    """Search and local refinement end at the same 2.2 degrees, so that is what the noise leaves."""
    folder, source = data
    assert align(folder, tmp_path / "out") == 0
    angle_deg, shift_a = pose_errors(tmp_path / "out", source.particles.poses)
    assert angle_deg < 3.0 and shift_a < PIXEL_A / 3
    found = read_particles(tmp_path / "out" / layout.PARTICLES)
    assert found.half is None  # no half sets were given, and these poses make none
    report = json.loads((tmp_path / "out" / layout.RUN).read_text())
    assert report["particles"] == COUNT and report["class_sizes"] == [COUNT]
    assert report["settings"]["target"]["resolution"] == 12.0
    assert align(folder, tmp_path / "out") == 2  # nothing is overwritten


def test_local_alignment_mends_what_is_close(data, tmp_path):
    folder, source = data
    true = source.particles.poses
    turn = Rotation.from_rotvec(np.radians(5) / np.sqrt(3) * np.ones((COUNT, 3))).as_matrix()
    off = Poses(true.image_to_volume @ turn, true.shift_a + [3.0, -2.0])
    (tmp_path / "off").mkdir()
    write_data_set(tmp_path / "off", ArraySource(replace(source.particles, poses=off), source.images),
                   half=np.arange(COUNT) % 2)
    write_volume(tmp_path / "off" / "map.mrc", Phantom().map().voxels)
    assert align(tmp_path / "off", tmp_path / "out", "--alignment", "local") == 0
    angle_deg, shift_a = pose_errors(tmp_path / "out", true)
    assert angle_deg < 3.0 and shift_a < PIXEL_A / 3
    np.testing.assert_array_equal(read_particles(tmp_path / "out" / layout.PARTICLES).half, np.arange(COUNT) % 2)


def test_of_two_maps_the_right_one_is_taken(data, tmp_path):
    folder, _ = data
    assert align(folder, tmp_path / "out", "--reference", str(folder / "other.mrc")) == 0
    sizes = json.loads((tmp_path / "out" / layout.RUN).read_text())["class_sizes"]
    assert sizes[0] > 0.9 * COUNT and sum(sizes) == COUNT


def test_local_alignment_needs_poses(data, tmp_path, capsys):
    assert align(data[0], tmp_path / "out", "--alignment", "local") == 2
    assert "local alignment needs poses" in capsys.readouterr().err


def test_repeated_alignments_tell_what_they_agree_on(data, tmp_path, capsys):
    folder, source = data
    assert align(folder, tmp_path / "out", *COARSE, "--repeats", "3") == 0
    found = read_particles(tmp_path / "out" / layout.PARTICLES)
    agreement = found.extra["swiftresAgreement"].astype(float)
    agreed = found.extra["swiftresConsensus"].astype(int) == 1
    np.testing.assert_array_equal(agreed, agreement > 0.5)
    assert json.loads((tmp_path / "out" / layout.RUN).read_text())["agreed"] == pytest.approx(agreed.mean())
    wrong = angular_errors(found.poses, source.particles.poses, symmetry_operators("C1"))[0] > np.radians(20)
    assert agreed.mean() > 0.8 and wrong[agreed].mean() < 0.15
    assert align(folder, tmp_path / "local", "--repeats", "3", "--alignment", "local") == 2
    assert "no gallery" in capsys.readouterr().err


@pytest.mark.slow
def test_a_consensus_on_the_grid_is_nearer_to_the_truth_than_one_search(data, tmp_path):
    """Five galleries, nothing refined: the mean of those that agree."""
    folder, source = data
    grid = ["--resolution", "16", "--search-resolution", "16", "--no-rerank", "--recall-sample", "0"]
    assert align(folder, tmp_path / "once", *grid) == 0
    assert align(folder, tmp_path / "five", *grid, "--repeats", "5") == 0
    once, five = (read_particles(tmp_path / name / layout.PARTICLES) for name in ("once", "five"))
    agreed = five.extra["swiftresConsensus"].astype(int) == 1
    true, operators = source.particles.poses, symmetry_operators("C1")
    before, after = (angular_errors(found.poses, true, operators)[0] for found in (once, five))
    assert agreed.mean() > 0.5 and np.median(after[agreed]) < 0.9 * np.median(before[agreed])
    assert np.sum(after[agreed] > 0.35) <= np.sum(before > 0.35)
    assert "swiftresAgreement" not in once.extra
