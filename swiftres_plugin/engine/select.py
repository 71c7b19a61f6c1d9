"""Particles of chosen classes, from file to file."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from swiftres_plugin.engine.io.star import read_particles, write_particles
from swiftres_plugin.errors import InputError


def select_classes(particles: str, classes: Sequence[int], leave_out: bool, output: str) -> tuple[int, int]:
    """Write the particles of these classes (numbers from 1), or all others; how many they are, and of how many.

    Raises `InputError` where there are no classes, a class has no particles, none would be left, or `output` exists.
    """
    if Path(output).exists():
        raise InputError("the output exists", where=output, remedy="Name another file.")
    found = read_particles(particles)
    if "class_id" not in found.scores:
        raise InputError("the particles have no classes", where=particles, expected="a column rlnClassNumber",
                         remedy="Give the particles.star of a classification.")
    number = found.scores["class_id"] + 1
    empty = sorted(set(classes) - set(number.tolist()))
    if empty:
        raise InputError("a class has no particles", where=particles, found=", ".join(map(str, empty)),
                         expected=f"classes from {number.min()} to {number.max()}")
    rows = np.flatnonzero(np.isin(number, classes) != leave_out)
    if not len(rows):
        raise InputError("no particles would be left", where=particles)
    write_particles(output, found.take(rows))
    return len(rows), len(found)
