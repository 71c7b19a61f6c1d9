"""A group from a file of matrices is the group it lists, however it is written; anything else is refused in one line."""
from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from swiftres_plugin.engine.io.symmetry import absolute, open_symmetry
from swiftres_plugin.engine.maths.geometry import rotation_angle
from swiftres_plugin.engine.maths.symmetry import equal_frames, generators, symmetry_operators
from swiftres_plugin.errors import InputError

TURN = Rotation.from_rotvec([0.4, -0.7, 0.2]).as_matrix()


def written(path, matrices, digits: int = 6, columns: int = 3):
    """A file of matrices with comments, blank lines, and perhaps a fourth row and column."""
    lines = ["# operators"]
    for matrix in matrices:
        rows = [[*row, 0.0][:columns] for row in matrix] + ([[0, 0, 0, 1]] if columns == 4 else [])
        lines += ["", *(" ".join(f"{value:.{digits}f}" for value in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("name", ["C1", "C5", "D7", "T", "O", "I1"])
@pytest.mark.parametrize("columns", [3, 4])
def test_a_turned_group_comes_back_exactly(tmp_path, name, columns):
    group = TURN @ symmetry_operators(name) @ TURN.T
    shuffled = group[np.random.default_rng(1).permutation(len(group))]
    found = open_symmetry(str(written(tmp_path / "group.txt", shuffled, digits=3, columns=columns)))
    np.testing.assert_allclose(found[0], np.eye(3), atol=1e-12)
    products = (found[:, None] @ found[None]).reshape(-1, 3, 3)
    assert rotation_angle(products[:, None], found[None]).min(axis=1).max() < 1e-7  # exact, though three digits were given
    assert rotation_angle(found[:, None], group[None]).min(axis=1).max() < 2e-3


def test_names_go_before_files_and_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "C2", symmetry_operators("C3"))
    assert len(open_symmetry("C2")) == 2 and len(open_symmetry("./C2")) == 3
    assert absolute("C2") == "C2" and absolute("./C2") == str(tmp_path / "C2")
    with pytest.raises(InputError, match="unknown symmetry"):
        open_symmetry("absent.txt")


@pytest.mark.parametrize("spoil, says", [
    (lambda m: m[:-1], "no group.*no matrix for the product"),
    (lambda m: m[1:], "no group"),
    (lambda m: np.concatenate([m, m[2:3]]), "occurs twice.*3 and 5"),
    (lambda m: m * [[[1.0]], [[1.2]], [[1]], [[1]]], "no rotation.*matrix 2"),
    (lambda m: m * np.array([1.0, 1, -1]), "no rotation.*matrix 1"),
    (lambda m: m[:0], "do not make whole matrices.*found 0 rows")])
def test_what_is_no_group_is_refused(tmp_path, spoil, says):
    path = written(tmp_path / "group.txt", spoil(symmetry_operators("C4")))
    with pytest.raises(InputError, match=says):
        open_symmetry(str(path))


@pytest.mark.parametrize("text, says", [
    ("1 0 0\n0 1 0\n", "whole matrices.*found 2 rows"), ("1 0 0 5\n0 1 0 0\n0 0 1 0\n", "line 1.*translation of 5"),
    ("1 0 0\n0 one 0\n0 0 1\n", "line 2.*no row of a matrix"), ("nan 0 0\n0 1 0\n0 0 1\n", "no rotation")])
def test_text_that_is_no_matrix_is_refused(tmp_path, text, says):
    (tmp_path / "group.txt").write_text(text)
    with pytest.raises(InputError, match=says):
        open_symmetry(str(tmp_path / "group.txt"))


@pytest.mark.parametrize("name", ["C1", "C6", "D2", "D5", "T", "O", "I3"])
def test_few_operators_make_the_group_and_frames_keep_it(name):
    group = symmetry_operators(name)
    assert len(generators(group)) <= 3
    for frame in equal_frames(group, np.eye(3)):
        assert rotation_angle((frame @ group @ frame.T)[:, None], group[None]).min(axis=1).max() < 1e-6
