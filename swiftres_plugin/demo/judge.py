"""What a run found, and how far that is from the truth."""
from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from swiftres_plugin import layout
from swiftres_plugin.demo.folder import DemoFolder
from swiftres_plugin.demo.frame import carried, frame_of
from swiftres_plugin.demo.parts import Part, joined, swiftres
from swiftres_plugin.engine.data.maps import Fsc
from swiftres_plugin.engine.io.mrc import read_map, write_map
from swiftres_plugin.engine.io.tables import read_fsc

TRUE_PARTICLES, TRUE_MAP, MASK = "particles_true.star", "true_map.mrc", "mask.mrc"  # of `swiftres simulate`


@dataclass(frozen=True, eq=False)
class Verdict:
    """A finished run beside the truth: angles_deg and shifts_a (N,) are the errors of its particles.

    `truth_fsc` compares the refined with the true map under the true mask; `record` is the run's own run.json.
    """

    run: Path
    record: dict[str, Any]
    half_fsc: Fsc
    truth_fsc: Fsc
    angles_deg: np.ndarray
    shifts_a: np.ndarray

    @property
    def figures(self) -> dict[str, float]:
        """The numbers of the summary."""
        return {
            "resolution_a": self.half_fsc.resolution_a(),
            "truth_resolution_a": self.truth_fsc.resolution_a(0.5, "masked"),
            "median_angle_deg": float(np.median(self.angles_deg)),
            "median_shift_a": float(np.median(self.shifts_a)),
            "iterations": len(self.record["iterations"]),
        }


def judge(run: Path, folder: DemoFolder, name: str) -> tuple[Verdict, Part]:
    """Compare the run with the truth by `swiftres compare` and `swiftres fsc`; files go to `folder.judged`.

    The true map and its mask are carried into the frame of the refined map first, as `swiftres compare` does with poses.
    """
    differences, curves = folder.judged / f"{name}_differences.csv", folder.judged / f"{name}_fsc.csv"
    compared = swiftres("compare", ["compare", run / layout.PARTICLES, folder.data / TRUE_PARTICLES, "--output", differences])
    frame = frame_of(run / layout.PARTICLES, folder.data / TRUE_PARTICLES)
    for file in (TRUE_MAP, MASK):
        there = carried(read_map(folder.data / file), *frame)
        write_map(carried_file(folder, name, file), replace(there, voxels=there.voxels.clip(0, 1)) if file == MASK else there)
    correlated = swiftres("fsc", ["fsc", run / layout.map_name(), carried_file(folder, name, TRUE_MAP),
                                  "--mask", carried_file(folder, name, MASK), "--output", curves])
    return read_verdict(run, differences, curves), joined("comparison with the truth", [compared, correlated])


def carried_file(folder: DemoFolder, name: str, file: str) -> Path:
    """The true map or mask in the frame of the run `name`."""
    return folder.judged / f"{name}_{file}"


def read_verdict(run: Path, differences: Path, curves: Path) -> Verdict:
    """The verdict from the files of the run, of `swiftres compare` and of `swiftres fsc`."""
    with differences.open(newline="", encoding="utf-8") as file:
        rows = [(float(row["angle_deg"]), float(row["shift_a"])) for row in csv.DictReader(file)]
    angles_deg, shifts_a = np.array(rows).T
    record = json.loads((run / layout.RUN).read_text())
    return Verdict(run, record, read_fsc(run / layout.fsc_name()), read_fsc(curves), angles_deg, shifts_a)
