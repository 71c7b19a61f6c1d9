"""`swiftres initial-model` as a user meets it: the files of a run, and every wrong input before any work."""
from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib.image import imread
from synthetic import particle_set, write_data_set

from swiftres_plugin import layout
from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.io.mrc import read_map
from swiftres_plugin.engine.io.star import read_particles

OPTIONS = ["--finest-resolution", "30", "--diameter", "100", "--max-offset", "8", "--steps", "5", "--starts", "2",
           "--count", "2", "--symmetry", "C2", "--device", "cpu", "--threads", "2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data_set(folder, particle_set(80, noise=0.3), with_poses=False)
    return folder


def initial_model(data, output, *more) -> int:
    return main(["initial-model", "--particles", str(data / "particles.star"), "--output", str(output), *OPTIONS, *more])


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "run"
    assert initial_model(data, output) == 0
    return output


def test_everything_promised_is_written(finished):
    names = {layout.SETTINGS, layout.RUN, layout.PROGRESS, layout.PARTICLES, layout.SLICES, layout.map_name(1),
             layout.map_name(2)}
    assert {path.name for path in finished.iterdir()} == names
    for number in (1, 2):
        found = read_map(finished / layout.map_name(number))
        assert found.box_px == 32 and found.pixel_size_a == pytest.approx(4.0)
        assert np.isfinite(found.voxels).all() and found.voxels.std() > 0
    assert imread(finished / layout.SLICES).shape[:2] == (2 * 162 + 2, 6 * 162 + 2)


def test_particles_have_poses_and_classes(finished):
    particles = read_particles(finished / layout.PARTICLES)
    sizes = json.loads((finished / layout.RUN).read_text())["class_sizes"]
    turns = particles.poses.image_to_volume
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.tile(np.eye(3), (80, 1, 1)), atol=1e-4)
    assert len(np.unique(turns.round(3), axis=0)) > 40  # not one pose for all
    assert np.bincount(particles.scores["class_id"].astype(int), minlength=2).tolist() == sizes and sum(sizes) == 80


def test_the_record_says_that_the_hand_is_open(finished):
    told = json.loads((finished / layout.RUN).read_text())
    assert told["handedness"] == "undetermined" and any("mirror image" in text for text in told["warnings"])
    assert told["settings"]["model"]["count"] == 2 and told["particles"] == 80
    assert len(told["evidence"]) == 2 and np.isfinite(told["evidence"]).all()  # one start over classes, one over particles
    assert told["resolution_a"] == pytest.approx(128 / 4)  # the shell of the box of 128 A next to 30 A


def test_a_map_that_one_start_found_is_doubted(finished):
    """After so few steps the two starts do not agree, and the user is told."""
    told = json.loads((finished / layout.RUN).read_text())
    assert told["agreement"][0] == 1.0 and told["agreement"][1] < 0.5
    assert told["agreeing"] == 1 and told["doubtful"] is True
    assert any("may mean nothing" in text for text in told["warnings"])


def test_the_last_message_is_the_next_command(data, tmp_path, capsys):
    """At 1.6 times the resolution of the maps, with the symmetry that they were made in."""
    assert initial_model(data, tmp_path / "run", "--count", "1") == 0
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"--reference {tmp_path / 'run' / layout.map_name()} --initial-resolution 51 --symmetry C2" in last
    assert json.loads((tmp_path / "run" / layout.RUN).read_text())["initial_resolution_a"] == 51


def test_the_same_seed_gives_the_same_map(data, finished, tmp_path):
    assert initial_model(data, tmp_path / "again") == 0
    assert initial_model(data, tmp_path / "other", "--seed", "2") == 0
    runs = (finished, tmp_path / "again", tmp_path / "other")
    first, again, other = (read_map(run / layout.map_name()).voxels for run in runs)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1 * np.abs(first).max()


@pytest.mark.parametrize("more, text", [
    (["--finest-resolution", "5"], "finer than the particles"),
    (["--count", "5"], "too few particles"),
    (["--symmetry", "Q7"], "unknown symmetry")])
def test_wrong_input_is_refused_before_any_work(data, tmp_path, capsys, more, text):
    assert initial_model(data, tmp_path / "run", *more) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "run" / layout.SETTINGS).exists()


def test_nothing_is_overwritten(data, finished, capsys):
    assert initial_model(data, finished) == 2
    assert "already holds a run" in capsys.readouterr().err
