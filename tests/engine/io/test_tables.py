"""Tables keep their columns, and the FSC file its curves."""
from __future__ import annotations

import numpy as np
import pytest

from swiftres_plugin.engine.data.maps import Fsc
from swiftres_plugin.engine.io.tables import read_fsc, write_fsc, write_table


def test_fsc_round_trip(tmp_path):
    frequency = np.arange(33) / 211.2
    curves = np.random.default_rng(1).uniform(-0.1, 1, size=(4, 33))
    write_fsc(tmp_path / "fsc.csv", Fsc(frequency, *curves))
    back = read_fsc(tmp_path / "fsc.csv")
    np.testing.assert_allclose(back.frequency, frequency, rtol=1e-5)  # six digits are written
    for name, curve in zip(("unmasked", "masked", "randomised", "corrected"), curves):
        np.testing.assert_allclose(getattr(back, name), curve, rtol=1e-5)
    first = (tmp_path / "fsc.csv").read_text().splitlines()[0]
    assert first == "frequency,unmasked,masked,randomised,corrected"


def test_table_keeps_text_and_whole_numbers(tmp_path):
    write_table(tmp_path / "t.csv", {"name": ["a,b", "c"], "count": [3, 10**9], "value": np.array([0.1, 1e-7])})
    assert (tmp_path / "t.csv").read_text() == 'name,count,value\n"a,b",3,0.1\nc,1000000000,1e-07\n'


def test_columns_of_other_lengths_leave_no_file(tmp_path):
    with pytest.raises(ValueError):
        write_table(tmp_path / "t.csv", {"a": [1, 2], "b": [1]})
    assert list(tmp_path.iterdir()) == []
