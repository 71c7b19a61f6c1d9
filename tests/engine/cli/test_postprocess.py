"""`swiftres postprocess` as a user meets it, and beside relion_postprocess."""
from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest
from finished_maps import particle
from synthetic import particle_set, write_data_set

from swiftres_plugin import layout
from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.io.mrc import read_map, write_map
from swiftres_plugin.engine.io.tables import read_fsc
from swiftres_plugin.engine.postprocess import sharpen_halves
from swiftres_plugin.engine.stages.postprocess import compute_fsc, sphere_mask

BOX, PIXEL_A, B_FACTOR_A2 = 64, 1.6, 60.0


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Half maps, their mask, and particles with poses."""
    folder = tmp_path_factory.mktemp("data")
    halves = particle(BOX, PIXEL_A, B_FACTOR_A2, 0.25)
    write_map(folder / "half1.mrc", halves.first)
    write_map(folder / "half2.mrc", halves.second)
    write_map(folder / "mask.mrc", Map(sphere_mask(BOX, 0.32 * BOX), PIXEL_A))
    write_data_set(folder, particle_set(300))
    return folder


def postprocess(folder, output, *more) -> int:
    return main(["postprocess", "--half1", str(folder / "half1.mrc"), "--half2", str(folder / "half2.mrc"), "--output",
                 str(output), *map(str, more)])


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("done") / "out"
    assert postprocess(data, output, "--mask", data / "mask.mrc", "--particles", data / "particles.star") == 0
    return output


def test_everything_promised_is_written(done):
    names = {layout.POSTPROCESS, layout.MAP_SHARPENED, layout.LOCAL_RESOLUTION, layout.FSC, layout.GUINIER,
             layout.DIRECTIONAL_FSC, layout.DIRECTIONS}
    pictures = {"fsc.png", "guinier.png", "local_resolution.png", "directional_fsc.png", "orientations.png"}
    assert {p.name for p in done.iterdir()} == names | pictures
    assert all((done / name).read_bytes()[:4] == b"\x89PNG" for name in pictures)


def test_figures_agree_with_one_another(done):
    told = json.loads((done / layout.POSTPROCESS).read_text())
    fsc = read_fsc(done / layout.FSC)
    assert told["resolution_a"] == pytest.approx(fsc.resolution_a(), rel=1e-4)
    assert told["b_factor_a2"] == pytest.approx(-B_FACTOR_A2, abs=12)
    assert told["local_resolution_a"]["median"] == pytest.approx(fsc.resolution_a(0.5), rel=0.15)
    assert told["directional_resolution_a"]["median"] == pytest.approx(fsc.resolution_a(0.5), rel=0.1)
    assert told["anisotropy"] < 1.3 and told["orientation_efficiency"] > 0.85
    local = read_map(done / layout.LOCAL_RESOLUTION)
    assert local.pixel_size_a == pytest.approx(PIXEL_A) and local.voxels.max() > 0


def test_a_mask_is_found_and_a_b_factor_is_taken_as_given(data, tmp_path, capsys):
    assert postprocess(data, tmp_path / "out", "--bfactor", "-25", "--pixel-size", "1.7") == 0
    told = json.loads((tmp_path / "out" / layout.POSTPROCESS).read_text())
    assert told["b_factor_a2"] == -25 and told["pixel_size_a"] == 1.7 and told["orientation_efficiency"] is None
    mask = read_map(tmp_path / "out" / layout.MASK)
    assert mask.pixel_size_a == pytest.approx(1.7) and 0 < mask.voxels.mean() < 0.5
    assert "B-factor -25.0" in capsys.readouterr().out


WRONG = {
    "no half map": (["--half2", "none.mrc"], "none.mrc"),
    "a word for a B-factor": (["--bfactor", "much"], "a number or 'auto'"),
    "a B-factor beyond reason": (["--bfactor", "-99999"], "at least -2000"),
    "no pixel size": (["--pixel-size", "0"], "above 0"),
    "an unknown group": (["--symmetry", "X3"], "unknown symmetry")}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line_and_leaves_nothing(data, tmp_path, capsys, name):
    options, says = WRONG[name]
    assert postprocess(data, tmp_path / "out", *options) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_results_are_not_overwritten(data, done, capsys):
    assert postprocess(data, done) == 2
    assert "already holds results" in capsys.readouterr().err


def test_halves_without_anything_in_common(tmp_path, capsys):
    for half in (1, 2):
        voxels = np.random.default_rng(half).standard_normal((32,) * 3, dtype=np.float32)
        write_map(tmp_path / f"half{half}.mrc", Map(voxels, 2.0))
    assert postprocess(tmp_path, tmp_path / "out") == 2
    assert "nothing in common" in capsys.readouterr().err


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_postprocess") is None, reason="relion_postprocess is not installed")
def test_relion_agrees(data, done, tmp_path):
    """Resolution within one shell (RELION takes whole shells), corrected FSC within 0.04 (other random phases)."""
    told = json.loads((done / layout.POSTPROCESS).read_text())
    general, curve = by_relion(data, tmp_path, told["resolution_a"])
    assert 1 / told["resolution_a"] == pytest.approx(1 / general["_rlnFinalResolution"], abs=1.01 / (BOX * PIXEL_A))
    np.testing.assert_allclose(read_fsc(done / layout.FSC).corrected[1:-1], curve[1:-1], atol=0.04)


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_postprocess") is None, reason="relion_postprocess is not installed")
def test_relion_finds_the_same_b_factor(data, tmp_path):
    """Within 5 A^2 where the solvent is quiet: RELION fits the map with its solvent, whose noise flattens the plot."""
    halves, mask = particle(BOX, PIXEL_A, B_FACTOR_A2, 0.05), read_map(data / "mask.mrc")
    write_map(tmp_path / "half1.mrc", halves.first)
    write_map(tmp_path / "half2.mrc", halves.second)
    write_map(tmp_path / "mask.mrc", mask)
    _, found_a2, _ = sharpen_halves(halves, mask.voxels, compute_fsc(halves, mask.voxels), 4.0, None)
    general, _ = by_relion(tmp_path, tmp_path, 4.0)
    assert found_a2 == pytest.approx(general["_rlnBfactorUsedForSharpening"], abs=5)


def by_relion(folder, output, finest_a: float) -> tuple[dict[str, float], np.ndarray]:
    """What relion_postprocess finds, its line fitted from 10 A to `finest_a`."""
    subprocess.run(
        ["relion_postprocess", "--i", folder / "half1.mrc", "--i2", folder / "half2.mrc", "--mask", folder / "mask.mrc",
         "--angpix", str(PIXEL_A), "--auto_bfac", "--autob_lowres", "10", "--autob_highres", f"{finest_a:.6f}", "--o",
         output / "relion"], check=True, capture_output=True, cwd=output)  # it leaves a stray file where it runs
    return relion_results(output / "relion.star")


def relion_results(path) -> tuple[dict[str, float], np.ndarray]:
    """Numbers of the first table of a postprocess.star, and its corrected FSC."""
    general, _, rest = path.read_text().partition("data_fsc")
    words = [line.split() for line in general.splitlines() if line.startswith("_rln")]
    numbers = {w[0]: float(w[1]) for w in words if w[1].lstrip("-").replace(".", "", 1).isdigit()}
    lines = rest.split("data_guinier")[0].splitlines()
    column = [line.split()[0] for line in lines if line.startswith("_rln")].index("_rlnFourierShellCorrelationCorrected")
    rows = [line.split() for line in lines if line.strip() and line.strip()[0].isdigit()]
    return numbers, np.array([float(row[column]) for row in rows])
