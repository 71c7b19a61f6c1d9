"""Grey pictures: read back by another library, and put side by side."""
from __future__ import annotations

import numpy as np
from matplotlib.image import imread

from swiftres_plugin.engine.io.png import enlarged, montage, stretched, write_png


def test_a_picture_comes_back(tmp_path):
    grey = np.linspace(-0.2, 1.2, 35).reshape(5, 7)
    grey[0, 0] = np.nan
    write_png(tmp_path / "a.png", grey)
    expected = np.clip(np.nan_to_num(grey), 0, 1)
    np.testing.assert_allclose(imread(tmp_path / "a.png"), expected, atol=0.5 / 255 + 1e-6)


def test_tiles_stand_in_rows_on_white():
    page = montage([[np.full((3, 4), 0.1), np.full((3, 4), 0.2)], [np.full((3, 4), 0.3)]], gap_px=1)
    assert page.shape == (9, 11)
    assert page[1:4, 1:5].tolist() == np.full((3, 4), 0.1).tolist() and page[2, 7] == 0.2 and page[6, 2] == 0.3
    assert page[0].min() == page[:, 5].min() == page[6, 7] == 1


def test_grey_scale_and_size():
    tile = np.array([[2.0, 4.0], [3.0, 6.0]])
    np.testing.assert_allclose(stretched(tile, 2.0, 6.0), [[0, 0.5], [0.25, 1]])
    large = enlarged(tile, least_px=5)
    assert large.shape == (6, 6) and large[2, 2] == 2 and large[3, 3] == 6
