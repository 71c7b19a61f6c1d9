"""A symmetry as the user names it: a point group, or a file of rotation matrices."""
from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from swiftres_plugin.engine.maths.symmetry import checked_group, symmetry_operators
from swiftres_plugin.errors import InputError

MOST_TRANSLATION = 1e-3  # what a fourth column may hold


def open_symmetry(name: str) -> np.ndarray:
    """(|G|, 3, 3) rotations, the identity first, of a point group in RELION's axes or of a file of matrices.

    Raises `InputError` when `name` is neither, or when the file holds no group of rotations.
    """
    return read_operators(Path(name)) if is_file(name) else symmetry_operators(name)


def absolute(name: str) -> str:
    """The same symmetry, said so that it means the same from another folder."""
    return str(Path(name).resolve()) if is_file(name) else name


def is_file(name: str) -> bool:
    """Whether `name` is that of a file; a file named like a point group needs a path ("./O")."""
    try:
        symmetry_operators(name)
    except InputError:
        return bool(name.strip()) and Path(name).is_file()
    return False


def read_operators(path: Path) -> np.ndarray:
    """(|G|, 3, 3) the rotations of a text file: three rows of three numbers each, other lines being blank or after '#'.

    A fourth number in a row (as in 3x4 and 4x4 matrices) is a translation and must be zero; rows of 0 0 0 1 are skipped.
    Raises `InputError` for anything else, and when the matrices are no group.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot be read as a list of matrices", where=path, found=error) from error
    rows = [row for number, line in enumerate(text.splitlines(), 1) if (row := _row(path, number, line)) is not None]
    if not rows or len(rows) % 3:
        raise InputError("the rows do not make whole matrices", where=path, found=f"{len(rows)} rows of numbers",
                         expected="three for each operator of the group")
    return checked_group(np.array(rows).reshape(-1, 3, 3), path)


def _row(path: Path, number: int, line: str) -> list[float] | None:
    """Three numbers of a matrix, or None where the line holds none."""
    words = re.split(r"[\s,]+", line.partition("#")[0].strip())
    if words == [""]:
        return None
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) not in (3, 4):
        raise InputError("is no row of a matrix", where=f"{path}, line {number}", found=f"'{line.strip()}'",
                         expected="three numbers")
    if values == [0, 0, 0, 1]:
        return None
    if len(values) == 4 and abs(values[3]) > MOST_TRANSLATION:
        raise InputError("an operator moves the map", where=f"{path}, line {number}", found=f"a translation of {values[3]:g}",
                         expected="rotations about the centre of the box alone")
    return values[:3]
