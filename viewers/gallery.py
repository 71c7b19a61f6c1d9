"""Particles beside what the map predicts for them. The engine projects, in a child process."""
from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mrcfile
import numpy as np
import pyworkflow.utils as pwutils
from emtable import Table
from pyworkflow.project.project import PROJECT_RUNS
from scipy import ndimage

from swiftres_plugin import convert
from swiftres_plugin.plugin import Plugin

SCORE = "rlnLogLikeliContribution"


@dataclass(frozen=True)
class Pairs:
    """images, reprojections: (K, n, n); rank: (K,), 1 is the best of `count`; score: (K,), or None where there is none and
    the rank is the place in the file."""

    images: np.ndarray
    reprojections: np.ndarray
    score: np.ndarray | None
    rank: np.ndarray
    count: int


def read_pairs(star: str, map_path: str, folder: str, count: int, class_number: int = 1) -> Pairs:
    """`count` particles of a class, evenly from the best score to the worst, and their reprojections with CTF.

    Particles without scores are taken in their order. folder: where the selection and its projections are kept. Raises
    `ValueError` where the class has no particle.
    """
    # no guess of types: emtable would guess from the first row, whose probability may be written as 1
    optics, rows = (Table(fileName=star, tableName=name, guessType=False) for name in ("optics", "particles"))
    ordered = [row for row in rows if int(getattr(row, "rlnClassNumber", 1)) == class_number]
    scored = rows.hasColumn(SCORE)
    if scored:
        ordered.sort(key=lambda row: -float(getattr(row, SCORE)))
    if not ordered:
        raise ValueError(f"Class {class_number} holds no particle.")
    ranks = np.unique(np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int))
    chosen = [located(ordered[rank], os.path.dirname(star)) for rank in ranks]
    os.makedirs(folder, exist_ok=True)
    selection, stack = os.path.join(folder, "gallery.star"), os.path.join(folder, "gallery.mrcs")
    write_selection(selection, optics, chosen)
    program, line = Plugin.getEngineCommand(
        ["project", "--map", map_path, "--particles", selection, "--output", stack, "--ctf"])
    pwutils.runJob(None, program, line, env=Plugin.getEnviron())
    with mrcfile.open(stack, permissive=True) as mrc:
        predicted = mrc.data.astype(np.float32).reshape(len(chosen), *mrc.data.shape[-2:])
    images = read_images([row["rlnImageName"] for row in chosen])
    score = np.array([float(row[SCORE]) for row in chosen]) if scored else None
    return Pairs(images, predicted, score, ranks + 1, len(ordered))


def located(row: Any, folder: str) -> dict[str, str]:
    """A row of particles with its stack as it is found from here: as named, beside the STAR file in `folder`, or, in a
    project that was moved, below the runs of this one."""
    index, at, stack = row.rlnImageName.rpartition("@")
    stack = re.sub(r":mrcs?$", "", stack)
    in_project = stack[stack.rfind(f"/{PROJECT_RUNS}/") + 1:]
    places = (stack, os.path.join(folder, stack), in_project)
    return {**row._asdict(), "rlnImageName": f"{index}{at}{next(filter(os.path.exists, places), stack)}"}


def write_selection(path: str, optics: Table, chosen: Sequence[dict[str, str]]) -> None:
    """A STAR file of the rows `chosen`."""
    with open(path, "w") as file:
        convert.write_table(file, "optics", [row._asdict() for row in optics])
        convert.write_table(file, "particles", chosen)


def read_images(names: Sequence[str]) -> np.ndarray:
    """(K, n, n) images named as in STAR files, `000001@stack.mrcs`."""
    images = []
    for name in names:
        index, _, stack = name.rpartition("@")
        with mrcfile.mmap(stack, permissive=True) as mrc:
            images.append(np.array(mrc.data[int(index) - 1] if mrc.data.ndim == 3 else mrc.data, dtype=np.float32))
    return np.stack(images)


def low_passed(images: np.ndarray, resolution_a: float, pixel_size_a: float) -> np.ndarray:
    """Images (K, n, n) under a Gaussian whose transfer is one half at `resolution_a`; as they are where that is 0."""
    if resolution_a <= 0:
        return images
    sigma_px = np.sqrt(np.log(2) / 2) / np.pi * resolution_a / pixel_size_a
    return ndimage.gaussian_filter(images, (0, sigma_px, sigma_px))
