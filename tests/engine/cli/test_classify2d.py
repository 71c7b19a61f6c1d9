"""`swiftres classify2d` and `swiftres select` as a user meets them: files, wrong input, and what RELION makes of them."""
from __future__ import annotations

import json
import shutil
import subprocess

import mrcfile
import numpy as np
import pytest
from matplotlib.image import imread
from synthetic import particle_set, write_data_set

from swiftres_plugin import layout
from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.io.star_tables import read_tables

OPTIONS = ["--classes", "6", "--coarsest-resolution", "40", "--search-resolution", "30", "--finest-resolution", "20",
           "--diameter", "100", "--max-offset", "8", "--steps", "6", "--batch", "40", "--passes", "1", "--device", "cpu",
           "--threads", "2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data_set(folder, particle_set(90, noise=0.5), with_poses=False)
    return folder


def classify(data, output, *more) -> int:
    return main(["classify2d", "--particles", str(data / "particles.star"), "--output", str(output), *OPTIONS, *more])


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "run"
    assert classify(data, output) == 0
    return output


def test_everything_promised_is_written(finished):
    assert {path.name for path in finished.iterdir()} == {
        layout.SETTINGS, layout.RUN, layout.PROGRESS, layout.PARTICLES, layout.CLASSES, layout.CLASS_TABLE,
        layout.CONTACT_SHEET}
    with mrcfile.open(finished / layout.CLASSES) as stack:
        assert stack.data.shape == (6, 32, 32) and stack.is_image_stack() and np.isfinite(stack.data).all()
        assert stack.voxel_size.x == pytest.approx(4.0)
    assert min(imread(finished / layout.CONTACT_SHEET).shape[:2]) > 100


def test_tables_agree(finished):
    """Sizes in run.json, shares in classes.star and classes in particles.star; the largest class is the first."""
    particles = read_particles(finished / layout.PARTICLES)
    told = json.loads((finished / layout.RUN).read_text())
    sizes = np.bincount(particles.scores["class_id"], minlength=6)
    assert told["class_sizes"] == sizes.tolist() == sorted(sizes, reverse=True) and told["particles"] == 90
    table = read_tables(finished / layout.CLASS_TABLE)["model_classes"]
    np.testing.assert_allclose([float(value) for value in table["rlnClassDistribution"]], sizes / 90, atol=1e-6)
    assert table["rlnReferenceImage"][1] == f"000002@{layout.CLASSES}"
    assert all(0 < float(value) <= 999 for value in table["rlnEstimatedResolution"])
    turns = particles.poses.image_to_volume
    np.testing.assert_allclose(turns[:, 2], np.tile([0, 0, 1], (90, 1)), atol=1e-6)  # in the plane
    assert len(np.unique(turns[:, 0, 0].round(3))) > 40


def test_the_same_seed_gives_the_same_classes(data, finished, tmp_path):
    assert classify(data, tmp_path / "again") == 0
    assert classify(data, tmp_path / "other", "--seed", "2") == 0
    first, again, other = ((run / layout.CLASSES).read_bytes() for run in (finished, tmp_path / "again", tmp_path / "other"))
    assert first == again and first != other


@pytest.mark.parametrize("more, text", [
    (["--classes", "40"], "too few particles for so many classes"),
    (["--search-resolution", "15"], "resolutions must not become finer"),
    (["--finest-resolution", "4", "--search-resolution", "6"], "finer than the particles")])
def test_wrong_input_is_refused_before_any_work(data, tmp_path, capsys, more, text):
    assert classify(data, tmp_path / "run", *more) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "run" / layout.SETTINGS).exists()


def test_nothing_is_overwritten(data, finished, capsys):
    assert classify(data, finished) == 2
    assert "already holds a run" in capsys.readouterr().err


def select(finished, output, *more) -> int:
    return main(["select", "--particles", str(finished / layout.PARTICLES), "--output", str(output), *more])


def test_select_writes_the_particles_of_classes_or_the_others(finished, tmp_path, capsys):
    assert select(finished, tmp_path / "kept.star", "--classes", "1,2-3") == 0
    assert select(finished, tmp_path / "left.star", "--classes", "1-3", "--leave-out") == 0
    everything, kept, left = (read_particles(path) for path in (
        finished / layout.PARTICLES, tmp_path / "kept.star", tmp_path / "left.star"))
    chosen = np.isin(everything.scores["class_id"], (0, 1, 2))
    np.testing.assert_array_equal(kept.slice_index, everything.slice_index[chosen])
    np.testing.assert_array_equal(left.slice_index, everything.slice_index[~chosen])
    assert f"{chosen.sum()} of 90 particles" in capsys.readouterr().out


@pytest.mark.parametrize("classes, text", [
    ("9", "a class has no particles"), ("0", "count upwards"), ("a", "no class number")])
def test_select_refuses_classes_that_are_not_there(finished, tmp_path, capsys, classes, text):
    assert select(finished, tmp_path / "out.star", "--classes", classes) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out.star").exists()


def test_select_refuses_particles_without_classes_and_files_that_exist(data, finished, tmp_path, capsys):
    unclassified = ["select", "--particles", str(data / "particles.star"), "--output", str(tmp_path / "a")]
    assert main([*unclassified, "--classes", "1"]) == 2
    assert "no classes" in capsys.readouterr().err
    (tmp_path / "b").write_text("mine")
    assert select(finished, tmp_path / "b", "--classes", "1") == 2
    assert (tmp_path / "b").read_text() == "mine"


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_stack_create") is None, reason="relion_stack_create is not installed")
def test_relion_turns_particles_onto_the_averages(finished, tmp_path):
    """Particles moved and turned by RELION with our angles and origins add up to our average: no sign is wrong."""
    chosen = tmp_path / "one.star"
    assert select(finished, chosen, "--classes", "1") == 0
    subprocess.run(["relion_stack_create", "--i", str(chosen), "--o", str(tmp_path / "turned"), "--apply_transformation"],
                   check=True, capture_output=True, cwd=tmp_path)
    with mrcfile.open(tmp_path / "turned.mrcs") as stack, mrcfile.open(finished / layout.CLASSES) as averages:
        mean, average = stack.data.mean(0), averages.data[0]
    axis = np.arange(32) - 16
    inside = np.hypot(axis[:, None], axis[None]) < 11
    assert np.corrcoef(mean[inside], average[inside])[0, 1] > 0.7  # the mean has the CTF still in it
