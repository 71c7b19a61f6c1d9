"""`swiftres overfitting` and `swiftres refine --overfitting-guard` as a user meets them."""
from __future__ import annotations

import json

import numpy as np
import pytest
from synthetic import Phantom, particle_set, write_data_set, write_volume

from swiftres_plugin import layout
from swiftres_plugin.engine.cli.main import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one local iteration that guarded itself."""
    folder = tmp_path_factory.mktemp("data")
    sharp = Phantom(width_a=3.0)
    write_data_set(folder, particle_set(60, noise=0.2, phantom=sharp))
    write_volume(folder / "map.mrc", sharp.map().voxels)
    output = folder / "run"
    assert main(["refine", "--particles", str(folder / "particles.star"), "--reference", str(folder / "map.mrc"), "--output",
                 str(output), "--initial-resolution", "20", "--diameter", "100", "--alignment", "local", "--iterations", "1",
                 "--device", "cpu", "--threads", "1", "--overfitting-guard", "--guard-resolution", "16"]) == 0
    return output


def test_a_run_guards_itself(run):
    told, = json.loads((run / layout.RUN).read_text())["class_overfitting"]
    assert told["limit_a"] == 16 and told["noise_correlation"] < 0.1 < told["data_correlation"]
    assert told["overfitted_share"] == pytest.approx(max(0, told["noise_correlation"] / told["data_correlation"]), abs=1e-6)
    assert told["sentence"] in (run / layout.PROGRESS).read_text()
    assert {layout.overfitting_name(), "class1_overfitting.png"} <= {p.name for p in run.iterdir()}


def test_a_finished_run_is_guarded_to_a_folder(run, tmp_path, capsys):
    output = tmp_path / "guard"
    assert main(["overfitting", str(run), "--output", str(output), "--limit", "14", "--iterations", "1",
                 "--threads", "1"]) == 0
    told = json.loads((output / layout.OVERFITTING).read_text())
    assert told["classes"][0]["limit_a"] == 14 and told["classes"][0]["sentence"] in capsys.readouterr().out
    table = np.genfromtxt(output / layout.overfitting_name(), delimiter=",", names=True)
    assert table.dtype.names == ("frequency", "data", "noise", "true", "data_corrected", "noise_corrected")
    assert {p.name for p in output.iterdir()} == {layout.OVERFITTING, layout.overfitting_name(), "class1_overfitting.png"}
    assert main(["overfitting", str(run), "--output", str(output)]) == 2
    assert "already holds results" in capsys.readouterr().err


@pytest.mark.parametrize("options, says", [
    (["--limit", "5"], "leaves nothing to compare"), (["--limit", "-1"], "negative"), (["--device", "abacus"], "abacus")])
def test_wrong_options_are_one_line(run, tmp_path, capsys, options, says):
    assert main(["overfitting", str(run), "--output", str(tmp_path / "out"), *options]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_guard_without_shells_is_refused_before_the_run(run, tmp_path, capsys):
    assert main(["refine", "--particles", str(run.parent / "particles.star"), "--reference", str(run.parent / "map.mrc"),
                 "--output", str(tmp_path / "out"), "--overfitting-guard", "--guard-resolution", "7"]) == 2
    assert "leaves nothing to compare" in capsys.readouterr().err


def test_no_run_is_one_line(tmp_path, capsys):
    assert main(["overfitting", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "holds no run" in capsys.readouterr().err
