"""What a run wrote, read back with numpy alone: the viewers' only door to its files."""
from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import mrcfile
import numpy as np

from swiftres_plugin import layout

WIDTHS = {"posterior width of the orientation (degrees)": (slice(0, 3), 180 / np.pi),
          "posterior width of the shift (A)": (slice(3, 5), 1.0)}


class RunFiles:
    """The folder of a run, finished or not. Raises `FileNotFoundError` for what is not there."""

    def __init__(self, folder: str):
        self.folder = folder

    def iterations(self) -> list[int]:
        return [number for number, _ in layout.finished_iterations(self.folder)]

    def path(self, name: str, iteration: int = 0) -> str:
        """A result of `iteration`; 0 is the end of the run, or as far as it has come."""
        done = self.iterations()
        folder = os.path.join(self.folder, layout.iteration_name(iteration)) if iteration else self.folder
        if not iteration and done and not os.path.exists(os.path.join(folder, name)):
            folder = os.path.join(self.folder, layout.iteration_name(done[-1]))
        return existing(os.path.join(folder, name))

    def record(self) -> dict[str, Any]:
        """The run's own report, `run.json`."""
        with open(existing(os.path.join(self.folder, layout.RUN))) as file:
            return json.load(file)

    def posterior_widths(self, iteration: int = 0) -> dict[str, np.ndarray]:
        """Widths (N,) of orientation and shift by their name; only the last two iterations keep them."""
        number = iteration or max(self.iterations(), default=0)
        path = existing(os.path.join(self.folder, layout.iteration_name(number), layout.ARRAYS))
        with np.load(path) as arrays:
            covariance = arrays["covariance"]
        return {name: factor * np.sqrt(np.trace(covariance[:, part, part], axis1=1, axis2=2))
                for name, (part, factor) in WIDTHS.items()}


def existing(path: str) -> str:
    if not os.path.exists(path):
        raise FileNotFoundError(2, "not there", path)
    return path


@dataclass(frozen=True)
class DensityMap:
    """voxels: (n, n, n) in (z, y, x) order."""

    voxels: np.ndarray
    pixel_size_a: float


def read_map(path: str) -> DensityMap:
    """A map that the engine wrote."""
    with mrcfile.open(existing(path), permissive=True) as mrc:
        return DensityMap(np.asarray(mrc.data, dtype=np.float32), float(mrc.voxel_size.x))
