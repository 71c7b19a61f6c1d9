"""Every wrong input is refused with its own words, and the right ones pass."""
from __future__ import annotations

import os

import numpy as np
import pytest

from swiftres_plugin import layout
from swiftres_plugin.engine.checks import check_box, check_mask, check_output_folder, check_reference, check_search
from swiftres_plugin.engine.data.maps import Map
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import SearchSettings


def ball(box: int = 20, pixel_size_a: float = 2.0) -> Map:
    grid = np.indices((box,) * 3) - box // 2
    return Map((np.square(grid).sum(0) < 25).astype(np.float32), pixel_size_a)


def test_good_mask_and_reference_pass():
    check_mask(ball(), 20, 2.001)
    check_reference(ball())
    check_box(20, 2.0)


@pytest.mark.parametrize("mask, says", [
    (ball(box=24), "another box than the particles; found 24 px; expected 20 px"),
    (ball(pixel_size_a=2.1), "another pixel size than the particles; found 2.1 A; expected 2 A"),
    (Map(ball().voxels * 1.2, 2.0), "leaves the range from 0 to 1; found 0 to 1.2"),
    (Map(ball().voxels - 0.1, 2.0), "leaves the range from 0 to 1; found -0.1 to 0.9"),
    (Map(ball().voxels * 0, 2.0), "mask is empty"),
])
def test_wrong_mask(mask, says):
    with pytest.raises(InputError, match=f"^my.mrc: .*{says}"):
        check_mask(mask, 20, 2.0, "my.mrc")


def test_wrong_reference():
    with pytest.raises(InputError, match="map is constant; found 3"):
        check_reference(Map(np.full((20, 20, 20), 3, np.float32), 1.0))
    with pytest.raises(InputError, match="map is too small; found 8 px"):
        check_reference(ball(box=8))


def test_wrong_box():
    with pytest.raises(InputError, match="box is too small"):
        check_box(8, 1.0)
    with pytest.raises(InputError, match="pixel size is no length; found nan"):
        check_box(64, float("nan"))


def test_new_and_empty_output_folders_pass(tmp_path):
    check_output_folder(tmp_path)
    check_output_folder(tmp_path / "a" / "b")


def test_output_folder_with_a_run(tmp_path):
    (tmp_path / layout.SETTINGS).write_text("{}")
    with pytest.raises(InputError, match=f"already holds a run; found settings.json.*--resume {tmp_path}"):
        check_output_folder(tmp_path)


def test_output_folder_with_an_iteration(tmp_path):
    folder = tmp_path / layout.iteration_name(3)
    folder.mkdir()
    check_output_folder(tmp_path)
    (folder / layout.STATE).write_text("{}")
    with pytest.raises(InputError, match="already holds a run; found it003"):
        check_output_folder(tmp_path)


def test_output_is_a_file(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(InputError, match="the output is a file"):
        check_output_folder(tmp_path / "x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"):
        check_output_folder(tmp_path / "run")


@pytest.mark.parametrize("settings, what", [
    ({"wiener": True}, "correct the CTF twice"), ({"recipe": "PCAW64,Flat"}, "changes inner products")])
def test_searches_that_make_no_sense_are_refused(settings, what):
    check_search(SearchSettings())
    with pytest.raises(InputError, match=what):
        check_search(SearchSettings(**settings))
