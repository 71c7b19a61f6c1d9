"""`swiftres refine` as a user meets it: results, going on after a kill, other references, and every wrong input."""
from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import mrcfile
import numpy as np
import pytest
import torch
from synthetic import Phantom, particle_set, write_data_set, write_volume

from swiftres_plugin import layout
from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.data.particles import ArraySource
from swiftres_plugin.engine.io import checkpoint
from swiftres_plugin.engine.io.mrc import read_map
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.io.tables import read_fsc
from swiftres_plugin.engine.maths.symmetry import angular_errors, in_frame_of, symmetry_operators
from swiftres_plugin.engine.report import SilentReporter
from swiftres_plugin.engine.run import open_run
from swiftres_plugin.engine.stages.postprocess import correlation
from swiftres_plugin.errors import InputError

COUNT = 150
OPTIONS = ["--initial-resolution", "20", "--search-resolution", "16", "--max-shift", "14", "--diameter", "100",
           "--threads", "2", "--device", "cpu"]
COLUMNS = {"rlnImageName", "rlnOpticsGroup", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnAngleRot", "rlnAngleTilt",
           "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnRandomSubset", "rlnClassNumber",
           "rlnLogLikeliContribution", "rlnMaxValueProbDistribution"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Particles without poses, a starting map, and the true particles."""
    folder = tmp_path_factory.mktemp("data")
    source = particle_set(COUNT, noise=0.3, shift_a=4.0)
    write_data_set(folder, source, with_poses=False)
    write_volume(folder / "map.mrc", Phantom().map().voxels)
    return folder, source.particles


def refine(folder, output, *more, reference="map.mrc", particles="particles.star"):
    return main(["refine", "--particles", str(folder / particles), "--reference", str(folder / reference), "--output",
                 str(output), *OPTIONS, *more])


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run of three iterations."""
    output = tmp_path_factory.mktemp("runs") / "run"
    assert refine(data[0], output, "--iterations", "3") == 0
    return output


def pose_errors(run, true) -> tuple[float, float]:
    """Medians in degrees and angstroms in the truth's frame."""
    operators = symmetry_operators("C1")
    found = read_particles(run / layout.PARTICLES).poses
    carried, _, _ = in_frame_of(found, true.poses, operators)
    angles, shifts = angular_errors(found, carried, operators)
    return float(np.rad2deg(np.median(angles))), float(np.median(shifts))


def columns_of(path) -> set[str]:
    table = path.read_text().split("data_particles")[1]
    return {line.split()[0][1:] for line in table.splitlines() if line.startswith("_")}


def test_the_truth_comes_back(data, finished):
    angle_deg, shift_a = pose_errors(finished, data[1])
    assert angle_deg < 2.5 and shift_a < 1.0


def test_everything_promised_is_written(finished):
    tops = [layout.SETTINGS, layout.PROGRESS, layout.RUN, layout.PARTICLES, layout.map_name(), layout.half_name(1),
            layout.half_name(2), layout.fsc_name(), layout.mask_name(), layout.sharpened_name(), layout.REPORT]
    assert all((finished / name).stat().st_size > 0 for name in tops)
    assert [n for n, _ in layout.finished_iterations(finished)] == [1, 2, 3]
    for _, folder in layout.finished_iterations(finished):
        assert {p.name for p in folder.iterdir()} >= {layout.STATE, layout.PARTICLES, layout.map_name(), layout.fsc_name()}
    assert {p.name for p in finished.iterdir()} == {*tops, "it001", "it002", "it003"}  # no cache, nothing half written
    assert COLUMNS <= columns_of(finished / layout.PARTICLES)


def test_maps_say_what_they_are(finished):
    for name in (layout.map_name(), layout.half_name(1), layout.half_name(2), layout.mask_name()):
        with mrcfile.open(finished / name) as mrc:
            assert mrc.data.shape == (32, 32, 32) and mrc.is_volume()
            assert mrc.voxel_size.x == pytest.approx(4.0)
            assert np.isfinite(mrc.data).all()
    mask = read_map(finished / layout.mask_name()).voxels
    assert mask.min() >= 0 and mask.max() <= 1


def test_the_halves_are_even_and_their_fsc_is_theirs(finished):
    half = read_particles(finished / layout.PARTICLES).half
    assert np.bincount(half).tolist() == [75, 75]
    fsc = read_fsc(finished / layout.fsc_name())
    first, second = (torch.from_numpy(read_map(finished / layout.half_name(h)).voxels.copy()) for h in (1, 2))
    np.testing.assert_allclose(fsc.unmasked, correlation(first, second), atol=1e-4)


def test_run_json_tells_how_it_was_made(finished):
    told = json.loads((finished / layout.RUN).read_text())
    assert told["settings"]["schedule"]["initial_resolution"] == 20.0
    assert told["particles"] == COUNT
    assert {"swiftres", "python", "numpy", "torch"} <= set(told["versions"])
    assert told["device"]["kind"] == "cpu" and told["device"]["threads"] == 2
    assert 8 <= told["resolution_a"] < 16
    assert [i["number"] for i in told["iterations"]] == [1, 2, 3]
    assert all({"search", "refinement", "reconstruction"} & set(i["seconds"]) for i in told["iterations"])
    assert told["peak_memory_bytes"] > 1e7


def test_the_run_is_in_the_database_beside_it(finished, capsys):
    assert main(["runs", "show", str(finished), "--database", str(finished.parent)]) == 0
    shown = capsys.readouterr().out
    assert "finished" in shown and str(finished) in shown and "seconds, iteration 3" in shown


def test_the_sharpened_map_and_its_figures(finished):
    """12 A is too coarse to fit a B-factor, so the map is weighted and low-passed; random views are even."""
    told = json.loads((finished / layout.RUN).read_text())
    assert told["class_b_factor_a2"] == [0.0] and 0.75 < told["class_orientation_efficiency"][0] <= 1
    sharp, plain = (read_map(finished / name).voxels for name in (layout.sharpened_name(), layout.map_name()))
    assert np.corrcoef(sharp.ravel(), plain.ravel())[0, 1] > 0.9


def test_progress_is_json_lines(finished):
    lines = [json.loads(line) for line in (finished / layout.PROGRESS).read_text().splitlines()]
    stages = {line["stage"] for line in lines if "stage" in line}
    assert any("search" in s for s in stages) and any("reconstruction" in s for s in stages)
    assert all(line["done"] <= line["total"] for line in lines if "stage" in line)
    assert "Finished" in lines[-2]["message"] and "Report: " in lines[-1]["message"]


def test_the_final_files_are_those_of_the_last_iteration(finished):
    for name in (layout.map_name(), layout.half_name(1), layout.fsc_name(), layout.PARTICLES):
        last = (finished / "it003" / name).read_bytes()
        if name == layout.PARTICLES:
            a, b = read_particles(finished / name), read_particles(finished / "it003" / name)
            np.testing.assert_array_equal(a.poses.image_to_volume, b.poses.image_to_volume)
        else:
            assert (finished / name).read_bytes() == last


# ------------------------------------------------------------------------------------------------ going on

def killed_after_first_iteration(folder, output) -> None:
    """Start a refinement in a process of its own and kill it once its first iteration is written."""
    command = [sys.executable, "-m", "swiftres_plugin.engine", "refine", "--particles", str(folder / "particles.star"),
               "--reference", str(folder / "map.mrc"), "--output", str(output), *OPTIONS, "--iterations", "3"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not layout.finished_iterations(output) and child.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert child.returncode == -signal.SIGKILL, "the run ended before it could be killed"


def same_result(a, b) -> None:
    """Poses and maps to the rounding of the files and of sums in another order."""
    first, second = (read_particles(run / layout.PARTICLES) for run in (a, b))
    np.testing.assert_array_equal(first.half, second.half)
    np.testing.assert_allclose(first.poses.image_to_volume, second.poses.image_to_volume, atol=1e-4)
    np.testing.assert_allclose(first.poses.shift_a, second.poses.shift_a, atol=1e-3)
    for name in (layout.map_name(), layout.half_name(1), layout.half_name(2)):
        one, two = read_map(a / name).voxels, read_map(b / name).voxels
        np.testing.assert_allclose(one, two, atol=1e-3 * np.abs(one).max())


def test_a_killed_run_goes_on_to_the_same_end(data, finished, tmp_path):
    output = tmp_path / "run"
    killed_after_first_iteration(data[0], output)
    done = len(layout.finished_iterations(output))
    assert 1 <= done < 3
    assert main(["refine", "--resume", str(output)]) == 0
    assert [n for n, _ in layout.finished_iterations(output)] == [1, 2, 3]
    same_result(output, finished)


def test_a_finished_run_goes_on_with_more_iterations(data, finished, tmp_path):
    output = shutil.copytree(finished, tmp_path / "run")
    assert main(["refine", "--resume", str(output), "--iterations", "4"]) == 0
    assert [n for n, _ in layout.finished_iterations(output)][-1] >= 3
    assert pose_errors(output, data[1])[0] < 2.5


def test_a_run_that_was_moved_with_its_data_finds_them(data, finished, tmp_path):
    """All paths are those of a place that is gone; what is not beside the run either keeps its name, and is missed by it."""
    shutil.copytree(data[0], tmp_path / "data")
    output = shutil.copytree(finished, tmp_path / "runs" / "run")
    asked = json.loads((output / layout.SETTINGS).read_text())
    assert asked["folder"] == str(finished.resolve())
    gone = {"particles": "/gone/data/particles.star", "references": ["/gone/data/map.mrc"], "mask": ""}
    asked |= {"folder": "/gone/runs/run", "inputs": gone}
    (output / layout.SETTINGS).write_text(json.dumps(asked))
    opened, _, state = open_run(output, {}, SilentReporter())
    assert opened.inputs.particles == str(tmp_path / "data" / "particles.star") and state.number == 3
    assert opened.inputs.references == (str(tmp_path / "data" / "map.mrc"),)
    (tmp_path / "data" / "map.mrc").unlink()
    with pytest.raises(InputError, match="/gone/data/map.mrc"):
        open_run(output, {}, SilentReporter())


def test_a_damaged_checkpoint_stops_a_resume(finished, tmp_path, capsys):
    output = shutil.copytree(finished, tmp_path / "run")
    (output / "it003" / "arrays.npz").write_bytes(b"")
    assert main(["refine", "--resume", str(output), "--iterations", "4"]) == 2
    assert "it003" in one_line(capsys)


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_text("")])
def test_nothing_to_go_on_with(tmp_path, capsys, make):
    make(tmp_path / "run")
    assert main(["refine", "--resume", str(tmp_path / "run")]) == 2
    assert str(tmp_path / "run") in one_line(capsys)


def test_settings_stay_in_a_resumed_run(finished, capsys):
    assert main(["refine", "--resume", str(finished), "--symmetry", "D2"]) == 2
    assert "--symmetry" in one_line(capsys)


# -------------------------------------------------------------------------------------------- references

@pytest.mark.parametrize("scale, box, pixel_size_a", [(0.01, 32, 4.0), (100.0, 40, 3.5)], ids=["same grid", "another grid"])
def test_neither_grid_nor_grey_scale_of_the_reference_matter(data, finished, tmp_path, scale, box, pixel_size_a):
    """Same resolution, same poses as with the starting map on the particles' grid."""
    write_volume(tmp_path / "map.mrc", scale * Phantom().map(box, pixel_size_a).voxels, pixel_size_a)
    output = tmp_path / "run"
    assert refine(data[0], output, "--iterations", "3", reference=tmp_path / "map.mrc") == 0
    angle_deg, shift_a = pose_errors(output, data[1])
    assert angle_deg < 2.5 and shift_a < 1.0
    expected = json.loads((finished / layout.RUN).read_text())["resolution_a"]
    assert json.loads((output / layout.RUN).read_text())["resolution_a"] == pytest.approx(expected, rel=0.05)
    messages = (output / layout.PROGRESS).read_text()
    assert ("resampled" in messages) == (box != 32)


def test_half_sets_of_the_input_are_kept(data, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    half = np.arange(60) % 3 % 2
    source = particle_set(60, noise=0.3)
    write_data_set(folder, source, half=half)
    write_volume(folder / "map.mrc", Phantom().map().voxels)
    assert refine(folder, tmp_path / "run", "--iterations", "1") == 0
    np.testing.assert_array_equal(read_particles(tmp_path / "run" / layout.PARTICLES).half, half)


def test_local_alignment_starts_from_the_poses_given(data, tmp_path):
    """True poses stay; the same from no poses at all is refused."""
    folder = tmp_path / "data"
    folder.mkdir()
    source = particle_set(80, noise=0.3)
    write_data_set(folder, source)
    write_volume(folder / "map.mrc", Phantom().map().voxels)
    assert refine(folder, tmp_path / "run", "--alignment", "local", "--iterations", "2") == 0
    assert pose_errors(tmp_path / "run", source.particles)[0] < 3
    assert refine(data[0], tmp_path / "other", "--alignment", "local") == 2


# -------------------------------------------------------------------------------------------- wrong input

def one_line(capsys) -> str:
    """What the user reads: one line of error."""
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if line.startswith("swiftres: ")]
    assert len(errors) == 1 and "internal" not in errors[0], said
    return errors[0]


@pytest.fixture
def few(tmp_path):
    """A small data set that a test may spoil."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_data_set(folder, particle_set(12, noise=0.3))
    write_volume(folder / "map.mrc", Phantom().map().voxels)
    return folder


def change_star(folder, change) -> None:
    path = folder / "particles.star"
    path.write_text(change(path.read_text()))


def truncate(folder) -> None:
    path = folder / "particles.mrcs"
    os.truncate(path, path.stat().st_size - 5000)


def without_column(text: str, label: str) -> str:
    """The file with a column's name changed to one that means nothing."""
    return text.replace(f"_{label} ", "_rlnSomethingElse ")


def spoil_pixels(folder) -> None:
    with mrcfile.open(folder / "particles.mrcs", "r+") as mrc:
        mrc.data[7, 3, 4] = np.nan


def wrong_box_of_a_group(folder) -> None:
    def add_group(text: str) -> str:
        head, tail = text.split("\ndata_particles")
        row = next(line for line in head.splitlines() if line.startswith("1 "))
        return head.rstrip() + "\n" + row.replace("1 opticsGroup1", "2 opticsGroup2").replace(" 32 2", " 48 2") \
            + "\n\ndata_particles" + tail.replace("000003@particles.mrcs 1", "000003@particles.mrcs 2")
    change_star(folder, add_group)


WRONG_PARTICLES = {
    "missing stack": (lambda f: (f / "particles.mrcs").unlink(), "particles.mrcs"),
    "truncated stack": (truncate, "truncated"),
    "stack that is no MRC": (lambda f: (f / "particles.mrcs").write_text("no" * 900), "particles.mrcs"),
    "index past the end": (lambda f: change_star(f, lambda t: t.replace("000012@", "000013@")), "past the end"),
    "pixels that are no numbers": (spoil_pixels, "000008@"),
    "no optics": (lambda f: change_star(f, lambda t: "data_particles" + t.split("data_particles")[1]), "optics"),
    "no defocus": (lambda f: change_star(f, lambda t: without_column(t, "rlnDefocusU")), "rlnDefocusU"),
    "no voltage": (lambda f: change_star(f, lambda t: without_column(t, "rlnVoltage")), "rlnVoltage"),
    "boxes that are not those of the stack": (wrong_box_of_a_group, "another size"),
    "no particles": (lambda f: change_star(f, lambda t: t.split("000001@")[0]), "empty"),
    "no table": (lambda f: (f / "particles.star").write_text("hello"), "particles.star"),
    "no such file": (lambda f: (f / "particles.star").unlink(), "particles.star")}


@pytest.mark.parametrize("name", WRONG_PARTICLES)
def test_wrong_particles(few, tmp_path, capsys, name):
    spoil, says = WRONG_PARTICLES[name]
    spoil(few)
    assert refine(few, tmp_path / "run") == 2
    assert says.lower() in one_line(capsys).lower()
    nothing_was_done(tmp_path / "run")


def nothing_was_done(run) -> None:
    """No iteration and no result; at most what was asked for and the reading of particles."""
    assert layout.finished_iterations(run) == []
    left = {p.name for p in run.iterdir()} if run.exists() else set()
    assert left <= {layout.SETTINGS, layout.PROGRESS}


def mask_file(folder, voxels, pixel_size_a=4.0):
    return ["--mask", str(write_volume(folder / "mask.mrc", voxels, pixel_size_a))]


WRONG_MAPS = {
    "reference that is no cube": (lambda f: write_volume(f / "map.mrc", np.ones((32, 32, 30))) and [], "cub"),
    "empty reference": (lambda f: write_volume(f / "map.mrc", np.zeros((32,) * 3)) and [], "constant"),
    "missing reference": (lambda f: (f / "map.mrc").unlink() or [], "map.mrc"),
    "reference with NaN": (lambda f: write_volume(f / "map.mrc", np.full((32,) * 3, np.nan)) and [], "map.mrc"),
    "mask outside 0-1": (lambda f: mask_file(f, np.linspace(-1, 3, 32 ** 3).reshape((32,) * 3)), "0 to 1"),
    "empty mask": (lambda f: mask_file(f, np.zeros((32,) * 3)), "empty"),
    "mask of another box": (lambda f: mask_file(f, np.ones((40,) * 3)), "40 px"),
    "mask of another pixel size": (lambda f: mask_file(f, np.ones((32,) * 3), 3.0), "pixel size"),
    "mask that is no cube": (lambda f: mask_file(f, np.ones((32, 32, 31))), "mask.mrc"),
    "missing mask": (lambda f: ["--mask", str(f / "none.mrc")], "none.mrc"),
    "unknown symmetry": (lambda f: ["--symmetry", "Q7"], "symmetry"),
    "resolution past Nyquist": (lambda f: ["--initial-resolution", "5"], "nyquist"),
    "a second reference": (lambda f: ["--reference", str(f / "map.mrc")], "two starting maps are the same")}


@pytest.mark.parametrize("name", WRONG_MAPS)
def test_wrong_maps_and_settings(few, tmp_path, capsys, name):
    spoil, says = WRONG_MAPS[name]
    more = spoil(few)
    assert refine(few, tmp_path / "run", *more) == 2
    assert says.lower() in one_line(capsys).lower()
    nothing_was_done(tmp_path / "run")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_no_gpu_where_one_was_asked_for(few, tmp_path, capsys, device):
    assert refine(few, tmp_path / "run", "--device", device) == 2
    assert "not available" in one_line(capsys)
    nothing_was_done(tmp_path / "run")


def test_an_unknown_device(few, tmp_path, capsys):
    assert refine(few, tmp_path / "run", "--device", "gpu") == 2
    assert "'gpu'" in one_line(capsys)


def test_an_output_folder_that_holds_a_run(data, finished, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    assert refine(data[0], finished) == 2
    assert "--resume" in one_line(capsys)
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*")} == before


def test_a_corrected_input_may_use_the_same_folder(few, tmp_path, capsys):
    """An input that was refused before any work leaves the output folder free."""
    write_volume(few / "map.mrc", np.zeros((32,) * 3))
    assert refine(few, tmp_path / "run") == 2
    write_volume(few / "map.mrc", Phantom().map().voxels)
    assert refine(few, tmp_path / "run", "--iterations", "1") == 0


def test_missing_options(tmp_path, capsys):
    assert main(["refine", "--output", str(tmp_path / "run")]) == 2
    assert "--particles" in one_line(capsys)
    assert main(["refine", "--particles", "x.star"]) == 2
    assert "--output" in one_line(capsys)


def test_a_full_disk_keeps_the_last_iteration(data, finished, tmp_path, capsys, monkeypatch):
    """The second iteration cannot be written: the first stands, and the run goes on from it when there is room."""
    write = checkpoint.write_map

    def filling(path, density):
        if "it002" in str(path) and "half2" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, density)

    output = tmp_path / "run"
    monkeypatch.setattr(checkpoint, "write_map", filling)
    assert refine(data[0], output, "--iterations", "3") == 2
    assert "no space left" in one_line(capsys)
    assert [n for n, _ in layout.finished_iterations(output)] == [1]
    monkeypatch.setattr(checkpoint, "write_map", write)
    assert main(["refine", "--resume", str(output)]) == 0
    same_result(output, finished)


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 700 kB; needs to be root."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(mount)], capture_output=True)
    if made.returncode:
        pytest.skip(f"cannot mount a small disk: {made.stderr.decode().strip()}")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_truly_full_disk(data, tiny_disk, capsys):
    assert refine(data[0], tiny_disk / "run", "--iterations", "3") == 2
    assert "no space left" in one_line(capsys).lower()
    assert not list((tiny_disk / "run").glob("*.part"))


def test_particles_in_several_stacks_and_groups(data, tmp_path):
    """Two stacks, two optics groups: the same poses as from one."""
    folder, particles = data
    images = np.concatenate([mrcfile.read(folder / "particles.mrcs")])
    source = ArraySource(replace(particles, optics=particles.optics * 2, optics_group=np.arange(COUNT) % 2), images)
    other = tmp_path / "data"
    other.mkdir()
    write_data_set(other, source, with_poses=False)
    write_volume(other / "map.mrc", Phantom().map().voxels)
    with mrcfile.new(other / "second.mrcs") as mrc:
        mrc.set_data(images[100:])
    text = (other / "particles.star").read_text()
    for i in range(100, COUNT):
        text = text.replace(f"{i + 1:06d}@particles.mrcs", f"{i - 99:06d}@second.mrcs")
    (other / "particles.star").write_text(text)
    assert refine(other, tmp_path / "run", "--iterations", "2") == 0
    assert pose_errors(tmp_path / "run", particles)[0] < 3
