"""Columns of the optics table beyond the plain microscope, and the damping of the particles' transfer.

A column in which every value is the one that changes nothing is not interpreted: it is kept and written back as it was.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..data.particles import NO_DISTORTION, Ctf, Optics
from .star_tables import Table

TILT = ("rlnBeamTiltX", "rlnBeamTiltY")  # mrad
ZERNIKE = ("rlnOddZernike", "rlnEvenZernike")
MAGNIFICATION = ("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11")
DAMPING = {"rlnCtfBfactor": 0.0, "rlnCtfScalefactor": 1.0}
LARGEST_DISTORTION = 0.5  # beyond, the matrix is no magnification but a mistake

Numbers = Callable[[str], np.ndarray]  # a column as (N,) float64


def aberrations(path: Path, table: Table, numbers: Numbers) -> list[dict[str, tuple[float, ...]]]:
    """Fields of `Optics` for each group, as far as `table` states them; those columns leave `table`.

    Raises `InputError` where coefficients cannot be read or a magnification matrix is far from 1.
    """
    groups = len(next(iter(table.values())))
    tilts = 1e-3 * _columns(table, numbers, TILT, (0.0, 0.0), groups)
    matrices = _columns(table, numbers, MAGNIFICATION, NO_DISTORTION, groups)
    odd, even = (_coefficients(path, table, label, groups) for label in ZERNIKE)
    wrong = np.linalg.norm(matrices - NO_DISTORTION, axis=1) > LARGEST_DISTORTION
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError("the magnification matrix is no small distortion", where=f"{path}, rlnMagMat00, row {row + 1}",
                         found=" ".join(f"{value:g}" for value in matrices[row]), expected="about 1 0 0 1")
    return [{"beam_tilt_rad": tuple(tilts[g].tolist()), "magnification": tuple(matrices[g].tolist()),
             "odd_zernike": odd[g], "even_zernike": even[g]} for g in range(groups)]


def _columns(table: Table, numbers: Numbers, labels: Sequence[str], neutral: Sequence[float], groups: int) -> np.ndarray:
    """(groups, labels) values, taken out of `table` unless all are neutral."""
    values = np.tile(np.array(neutral), (groups, 1))
    for place, label in enumerate(labels):
        if label in table:
            values[:, place] = numbers(label)
    if (values != neutral).any():
        for label in labels:
            table.pop(label, None)
    return values


def _coefficients(path: Path, table: Table, label: str, groups: int) -> list[tuple[float, ...]]:
    """RELION's vectors, [1.5,-2,...], taken out of `table` unless all are zero."""
    if label not in table:
        return [()] * groups
    found = []
    for row, text in enumerate(table[label]):
        try:
            found.append(tuple(float(word) for word in re.split(r"[\[\],\s]+", text) if word))
        except ValueError as error:
            raise InputError("is no list of numbers", where=f"{path}, {label}, row {row + 1}", found=f"'{text}'",
                             expected="like [0.1,-0.2,0]") from error
        if not np.isfinite(found[-1]).all():
            raise InputError("is no list of finite numbers", where=f"{path}, {label}, row {row + 1}", found=f"'{text}'")
    if any(any(values) for values in found):
        del table[label]
    return found


def aberration_columns(groups: Sequence[Optics]) -> dict[str, list[str]]:
    """The columns of those aberrations that a group has."""
    columns: dict[str, list[str]] = {}
    if any(any(g.beam_tilt_rad) for g in groups):
        for axis, label in enumerate(TILT):
            columns[label] = [f"{1e3 * g.beam_tilt_rad[axis]:.9g}" for g in groups]
    for label, vectors in zip(ZERNIKE, ([g.odd_zernike for g in groups], [g.even_zernike for g in groups])):
        if any(any(vector) for vector in vectors):
            columns[label] = ["[" + ",".join(f"{value:.12g}" for value in vector) + "]" for vector in vectors]
    if any(g.distorted for g in groups):
        for place, label in enumerate(MAGNIFICATION):
            columns[label] = [f"{g.magnification[place]:.12g}" for g in groups]
    return columns


def damping_of(rows: Table, table: Table | None, group: np.ndarray, numbers: Callable[[Table, str], np.ndarray],
               ) -> dict[str, np.ndarray]:
    """B-factors and scales of the particles where a particle has one: from its own row, else from its optics group."""
    found = {}
    for label, neutral in DAMPING.items():
        if label in rows:
            values = numbers(rows, label)
        elif table is not None and label in table:
            values = numbers(table, label)[group]
        else:
            continue
        if (values != neutral).any():
            found[label] = values
    return found


def damping_columns(ctf: Ctf) -> dict[str, list[str]]:
    """Columns of the particles' damping, where there is any."""
    columns = zip(DAMPING, (ctf.b_factor_a2, ctf.scale))
    return {label: [f"{value:.9g}" for value in values.tolist()] for label, values in columns if values is not None}
