"""`swiftres fsc` says the resolution at which two maps part, and writes the curves."""
from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
import torch

from swiftres_plugin.engine.cli.main import main
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.engine.io.mrc import write_map
from swiftres_plugin.engine.io.tables import read_fsc
from swiftres_plugin.engine.maths.fourier import filter_shells

BOX, PIXEL = 32, 2.0


def save(path, voxels, pixel_size_a=PIXEL):
    write_map(path, Map(voxels.astype(np.float32), pixel_size_a))
    return str(path)


@pytest.fixture
def pair(tmp_path):
    """Two maps, equal up to shell 8 (8 A) and unrelated beyond."""
    generator = np.random.default_rng(1)
    common, a, b = generator.normal(size=(3, BOX, BOX, BOX)).astype(np.float32)
    low = torch.cat([torch.ones(9), torch.zeros(8)])
    shared = filter_shells(torch.from_numpy(common), low).numpy()
    rest = [filter_shells(torch.from_numpy(x), 1 - low).numpy() for x in (a, b)]
    return [save(tmp_path / f"{i}.mrc", shared + own) for i, own in enumerate(rest)]


def test_resolution_and_curves(pair, tmp_path, capsys):
    assert main(["fsc", *pair, "--output", str(tmp_path / "fsc.csv")]) == 0
    said = capsys.readouterr().out
    limit = float(said.split("unmasked")[1].split()[0])
    assert 64 / 9 < limit < 64 / 8  # between the last shared shell and the first that is not
    fsc = read_fsc(tmp_path / "fsc.csv")
    np.testing.assert_allclose(fsc.unmasked[:9], 1, atol=1e-4)
    assert abs(fsc.unmasked[9:]).max() < 0.143
    assert "masked " not in said.replace("unmasked ", "")


@pytest.mark.relion
def test_curve_agrees_with_relion(pair, tmp_path):
    program = shutil.which("relion_image_handler")
    if program is None:
        pytest.skip("relion_image_handler is not installed: the curve is not checked against it")
    said = subprocess.run([program, "--i", pair[0], "--fsc", pair[1]], capture_output=True, text=True, check=True,
                          cwd=tmp_path)  # it also writes its input, as ".spi", where no output is named
    rows = [line.split() for line in said.stdout.splitlines()]
    theirs = [float(row[-1]) for row in rows if len(row) >= 4 and row[0].isdigit()]
    assert main(["fsc", *pair, "--output", str(tmp_path / "fsc.csv")]) == 0
    ours = read_fsc(tmp_path / "fsc.csv").unmasked
    # relion counts the plane x = 0 twice as heavily as the rest: a small part of the shell noise, which is 0.03 here
    np.testing.assert_allclose(theirs[:16], ours[:16], atol=0.012)


def test_mask_gives_all_curves(pair, tmp_path, capsys):
    axis = np.arange(BOX) - BOX // 2
    radius = np.sqrt(axis[:, None, None]**2 + axis[:, None]**2 + axis**2)
    mask = save(tmp_path / "mask.mrc", np.clip((13 - radius) / 4, 0, 1))
    assert main(["fsc", *pair, "--mask", mask]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[2:5]] == ["unmasked", "masked", "corrected"]


def test_unrelated_maps_have_no_resolution(tmp_path, capsys):
    a, b = np.random.default_rng(2).normal(size=(2, BOX, BOX, BOX))
    assert main(["fsc", save(tmp_path / "a.mrc", a), save(tmp_path / "b.mrc", b)]) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[-1] == "none"


@pytest.mark.parametrize("shape, pixel, text", [(24, PIXEL, "different boxes"), (BOX, 2.1, "different pixel sizes")])
def test_maps_that_do_not_fit(pair, tmp_path, capsys, shape, pixel, text):
    other = save(tmp_path / "other.mrc", np.random.default_rng(3).normal(size=(shape,) * 3), pixel)
    assert main(["fsc", pair[0], other]) == 2
    said = capsys.readouterr().err
    assert text in said and "other.mrc" in said and said.count("\n") == 1


def test_mask_that_does_not_fit(pair, tmp_path, capsys):
    for name, voxels in {"range": np.full((BOX,) * 3, 2.0), "box": np.ones((24,) * 3)}.items():
        assert main(["fsc", *pair, "--mask", save(tmp_path / f"{name}.mrc", voxels)]) == 2
        assert "the mask" in capsys.readouterr().err


def test_missing_file(pair, capsys):
    assert main(["fsc", pair[0], "nowhere.mrc"]) == 2
    assert "nowhere.mrc" in capsys.readouterr().err
