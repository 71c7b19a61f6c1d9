"""The numbers of a run's report: what was put in comes back out of the page."""
from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from synthetic import Phantom, described, particle_set, random_poses, write_data_set, write_volume

from swiftres_plugin import layout
from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.data.particles import Poses
from swiftres_plugin.engine.io.mrc import read_map
from swiftres_plugin.engine.io.tables import read_fsc
from swiftres_plugin.engine.maths.symmetry import symmetry_operators
from swiftres_plugin.engine.page import figures

COUNT = 60


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two iterations, by command line."""
    folder = tmp_path_factory.mktemp("data")
    write_data_set(folder, particle_set(COUNT, noise=0.3), with_poses=False)
    write_volume(folder / "map.mrc", Phantom().map().voxels)
    output = folder / "a <run>"
    assert main(["refine", "--particles", str(folder / "particles.star"), "--reference", str(folder / "map.mrc"),
                 "--output", str(output), "--initial-resolution", "25", "--max-shift", "12",
                 "--diameter", "110", "--threads", "1", "--device", "cpu", "--iterations", "2", "--no-auto-mask"]) == 0
    return output


@pytest.fixture(scope="module")
def gathered(run):
    return figures.gather(run)


def bytes_of(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.uint8).astype(float)


def test_a_refinement_ends_with_its_page(run, gathered):
    """The page holds the figures, and a name with markup in it stays text."""
    page = (run / layout.REPORT).read_text(encoding="utf-8")
    held = page.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert json.loads(held) == json.loads(json.dumps(gathered))
    assert "<title>swiftres: a &lt;run&gt;</title>" in page
    assert "<!--" not in page.split("<script")[0].replace("<!DOCTYPE", "")
    assert not any(link in page.replace("http://www.w3.org/2000/svg", "") for link in ("http:", "https:", "src=", "import "))
    assert len(page) < 5e6


def test_curves_are_those_of_every_iteration(run, gathered):
    (one,) = gathered["classes"]
    assert [i["number"] for i in one["fsc"]["iterations"]] == [1, 2]
    for found in one["fsc"]["iterations"]:
        fsc = read_fsc(run / layout.iteration_name(found["number"]) / layout.fsc_name())
        np.testing.assert_allclose(found["curves"]["masked"], fsc.masked, atol=6e-5)
        assert found["resolution_a"]["corrected"] == pytest.approx(fsc.resolution_a(), abs=1e-3)


def test_slices_give_the_map_back(run, gathered):
    voxels = read_map(run / layout.half_name(2)).voxels
    shown = gathered["classes"][0]["slices"]["half map 2"]
    for text, image in zip(shown["planes"], (voxels[:, :, 16], voxels[:, 16], voxels[16])):
        found = shown["low"] + bytes_of(text).reshape(32, 32) / 255 * (shown["high"] - shown["low"])
        np.testing.assert_allclose(found, image, atol=(shown["high"] - shown["low"]) / 500)


def test_wide_slices_become_means_of_blocks():
    voxels = np.repeat(np.random.default_rng(1).random((300, 300, 1), np.float32), 300, axis=2)
    shown = figures.slices_of(voxels)
    assert shown["px"] == 100
    found = shown["low"] + bytes_of(shown["planes"][0]).reshape(100, 100)[4, 7] / 255 * (shown["high"] - shown["low"])
    assert found == pytest.approx(voxels[12:15, 21:24, 150].mean(), abs=2e-3)


def test_the_surface_volume_is_the_density_inside_the_mask():
    """A Gaussian keeps its height and width, in a cropped and in a resampled box."""
    axis = np.arange(48) - 24
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    radius2 = x ** 2 + y ** 2 + z ** 2
    density = Map(np.exp(-radius2 / 2 / 5 ** 2).astype(np.float32), 2.0)
    for widest, pixel_size_a in ((96, 2.0), (19, 4.0)):
        found = figures.surface_volume(density, (radius2 <= 16 ** 2).astype(float), widest)
        n = found["px"]
        assert (n, found["pixel_size_a"]) == (min(38, widest), pytest.approx(pixel_size_a))
        values = found["top"] * (bytes_of(found["voxels"]).reshape(n, n, n) / 255) ** 2
        at = 2 * (np.arange(n) - n // 2) * found["pixel_size_a"] / 4
        np.testing.assert_allclose(values[n // 2, n // 2], np.exp(-at ** 2 / 2 / 5 ** 2), atol=0.01)
    assert figures.surface_px(1) == 96 and 10 * figures.surface_px(10) ** 3 < 1e6


def test_even_views_are_even_and_one_view_stands_at_its_mates():
    """20,000 even views fill 31 x 62 cells of ten with a scatter of sqrt(10) / 10; the view along x has mates at +-x in D2."""
    even = figures.view_map(described(random_poses(20_000)), "C1")
    values = np.array(even["relative"])
    assert values.mean() == pytest.approx(1, abs=1e-3)
    assert 0.20 < values.std() < 0.26  # 20 a cell: sqrt(20) / 20 = 0.22
    along_x = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]], float)  # its third column is x
    tilted = along_x @ np.array([[1, 0, 0], [0, np.cos(0.1), -np.sin(0.1)], [0, np.sin(0.1), np.cos(0.1)]])
    one = np.array(figures.view_map(described(Poses(tilted[None], np.zeros((1, 2)))), "D2")["relative"])
    expected = symmetry_operators("D2") @ tilted[:, 2]
    longitude = np.floor((np.arctan2(expected[:, 1], expected[:, 0]) / np.pi + 1) * 6).astype(int)
    assert set(np.argwhere(one > 0)[:, 1].tolist()) == set(longitude.tolist())


def test_histograms_count_every_particle():
    values = np.concatenate([np.arange(1000.0), [1e9, np.nan]])
    found = figures.histogram("anything", values)
    assert sum(found["counts"]) + found["left_out"] == 1001
    assert found["median"] == pytest.approx(500, abs=1) and found["edges"][-1] < 1001
    assert sum(figures.histogram("constant", np.ones(7))["counts"]) == 7


def test_widths_are_those_of_the_last_iteration(run, gathered):
    with np.load(run / "it002" / layout.ARRAYS) as arrays:
        width_deg = np.rad2deg(np.sqrt(np.trace(arrays["covariance"][:, :3, :3], axis1=1, axis2=2)))
    (found,) = [one for one in gathered["particles"]["histograms"] if "orientation" in one["name"]]
    assert found["median"] == pytest.approx(np.median(width_deg), rel=1e-4)


def test_the_command_repeats_the_run(gathered):
    words = gathered["command"]
    assert words[words.index("--initial-resolution") + 1] == "25" and "--no-auto-mask" in words
    assert "--components" not in words  # at its default
    changed = {row["name"] for row in gathered["settings"] if row["changed"]}
    assert changed == {"initial_resolution", "max_shift", "diameter", "threads", "device", "iterations",
                       "auto_mask"}


def test_report_refuses_what_is_no_run(tmp_path, run, capsys):
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "there is no run" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2
    assert "no finished iteration" in capsys.readouterr().err
    assert main(["report", str(run), "--output", str(run / layout.REPORT)]) == 2
    assert "the file exists" in capsys.readouterr().err
    assert main(["report", str(run), "--output", str(tmp_path / "copy.html")]) == 0
    assert (tmp_path / "copy.html").read_bytes() == (run / layout.REPORT).read_bytes()
