"""An index is built, saved, loaded and asked: it finds the true poses; clear words where it does not fit."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from synthetic import PLACES_A, Phantom, particle_set, write_data_set, write_volume

from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.maths.geometry import rotation_angle

COMMON = ["--diameter", "110", "--max-shift", "14", "--device", "cpu", "--threads", "1"]
OTHER_A = PLACES_A + np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [-34, 10, 22], [0, 0, 0]])  # one Gaussian of five
NEAR_RAD = np.deg2rad(10)  # the spacing of the references: without refinement nothing closer can be asked for


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    source = particle_set(80, noise=0.1)
    write_data_set(folder, source)
    write_volume(folder / "map.mrc", 3 * Phantom().map().voxels)
    write_volume(folder / "other.mrc", Phantom(places_a=OTHER_A).map().voxels)
    return folder


def train(data: Path, output: Path, *more: str) -> int:
    return main(["train", "--particles", str(data / "particles.star"), "--reference", str(data / "map.mrc"),
                 "--output", str(output), "--resolution", "20", "--search-resolution", "20", *COMMON, *more])


def query(data: Path, index: Path, output: Path, *more: str) -> int:
    return main(["query", "--particles", str(data / "particles.star"), "--index", str(index), "--output", str(output), *COMMON,
                 *more])


@pytest.fixture(scope="module")
def index(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "two"
    assert train(data, folder, "--reference", str(data / "other.mrc")) == 0
    return folder


def test_matches_are_the_true_poses_of_the_right_class(data, index, tmp_path):
    assert query(data, index, tmp_path / "found", "--matches", "3") == 0
    truth, best = read_particles(data / "particles.star"), read_particles(tmp_path / "found" / "particles.star")
    angle = rotation_angle(best.poses.image_to_volume, truth.poses.image_to_volume)
    assert np.mean(angle < NEAR_RAD) >= 0.9
    assert np.mean(best.scores["class_id"] == 0) >= 0.9
    several = read_particles(tmp_path / "found" / "matches.star")
    rank = several.extra["swiftresMatchRank"].astype(int)
    assert np.array_equal(rank, np.tile([1, 2, 3], 80))
    scores = several.scores["log_likelihood"].reshape(80, 3)
    assert (np.diff(scores) <= 0).all()
    np.testing.assert_allclose(scores[:, 0], best.scores["log_likelihood"])


@pytest.mark.parametrize("options", [["--recipe", "torch"], ["--recipe", "IVF8,Flat", "--nprobe", "8"],
                                     ["--metric", "cosine", "--wiener", "--recipe", "exact"]])
def test_other_recipes_and_metrics_survive_the_folder(data, tmp_path, options):
    """The plain product and an inverted file that visits all lists find the poses as the default does."""
    assert train(data, tmp_path / "index", *options) == 0
    assert query(data, tmp_path / "index", tmp_path / "found") == 0
    truth, best = read_particles(data / "particles.star"), read_particles(tmp_path / "found" / "particles.star")
    assert np.mean(rotation_angle(best.poses.image_to_volume, truth.poses.image_to_volume) < NEAR_RAD) >= 0.8


def test_nothing_is_overwritten(data, index, tmp_path, capsys):
    assert train(data, index) == 2
    assert "not empty" in capsys.readouterr().err
    (tmp_path / "matches.star").touch()
    assert query(data, index, tmp_path) == 2
    assert "already holds" in capsys.readouterr().err


@pytest.mark.parametrize("change, words", [
    ({"format": 99}, "another version"), ({"box_px": 48}, "another box or pixel size"),
    ({"pixel_size_a": 3.0}, "another box or pixel size"), ({"last_shell": 4}, "another band"),
    (None, "no index in this folder")])
def test_an_index_that_does_not_fit_is_refused(data, index, tmp_path, capsys, change, words):
    copy = shutil.copytree(index, tmp_path / "copy")
    if change is None:
        (copy / "index.json").unlink()
    else:
        (copy / "index.json").write_text(json.dumps({**json.loads((copy / "index.json").read_text()), **change}))
    assert query(data, copy, tmp_path / "found") == 2
    assert words in capsys.readouterr().err


def test_a_damaged_index_is_told(data, index, tmp_path, capsys):
    copy = shutil.copytree(index, tmp_path / "copy")
    (copy / "class2_index.npz").write_bytes(b"nothing")
    assert query(data, copy, tmp_path / "found") == 2
    assert "damaged" in capsys.readouterr().err
