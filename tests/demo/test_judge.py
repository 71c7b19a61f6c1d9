"""The figures come from the files that the commands wrote."""
import json

import numpy as np
import pytest

from swiftres_plugin import layout
from swiftres_plugin.demo.folder import DemoFolder
from swiftres_plugin.demo.judge import read_verdict
from swiftres_plugin.demo.parts import Part
from swiftres_plugin.demo.summary import facts_of, summary
from swiftres_plugin.engine.data.maps import Fsc
from swiftres_plugin.engine.io.tables import write_fsc, write_table


@pytest.fixture
def verdict(tmp_path):
    frequency = np.arange(11) / 100
    falling = 1 - frequency / 0.1  # 0.143 at 1 / 0.0857 A, 0.5 at 20 A
    write_fsc(tmp_path / layout.fsc_name(), Fsc(frequency, 0 * frequency, 0 * frequency, 0 * frequency, falling))
    write_fsc(tmp_path / "truth.csv", Fsc(frequency, 0 * frequency, falling, 0 * frequency, 0 * frequency))
    write_table(tmp_path / "differences.csv", {"image": ["a", "b", "c"], "angle_deg": [1.5, 170.0, 2.5],
                                               "shift_a": [0.2, 0.1, 9.0]})
    (tmp_path / layout.RUN).write_text(json.dumps({"iterations": [{}, {}]}))
    return read_verdict(tmp_path, tmp_path / "differences.csv", tmp_path / "truth.csv")


def test_figures(verdict):
    assert verdict.figures == pytest.approx({
        "resolution_a": 100 / 8.57, "truth_resolution_a": 20.0, "median_angle_deg": 2.5, "median_shift_a": 0.2,
        "iterations": 2})
    assert facts_of({"here": verdict}) == {"here": verdict.figures}


def test_summary_has_every_figure_and_place(verdict, tmp_path):
    folder = DemoFolder(tmp_path)
    parts = [Part("walk", 61.0, 30.0, 2_000_000_000), Part("run", 2.0, 4.0, 1_000_000_000)]
    text = summary(folder, {"command line": verdict, "Scipion": verdict}, parts, left_out="")
    for expected in ("11.67 A", "20.00 A", "2.50 degrees", "0.20 A", "1 min 01 s", "1 min 03 s", "34.0 s", "2.00 GB",
                     str(folder.opener), str(folder.pictures / "overview.png"), str(folder.refined / layout.map_name())):
        assert expected in text
    without = summary(folder, {"command line": verdict}, parts, left_out="no pwem")
    assert "left out: no pwem" in without and str(folder.opener) not in without
