"""What follows the last iteration of a run: sharpened maps, the efficiency of the views, and the overfitting guard."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from swiftres_plugin import layout
from swiftres_plugin.engine.data.state import ClassState, RefinementState
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.io.mrc import write_map
from swiftres_plugin.engine.postprocess import orientation_coverage, sharpen_halves
from swiftres_plugin.engine.stages.postprocess import particle_diameter_px


def sharpen_classes(engine: Engine, state: RefinementState, output: Path) -> dict[str, Any]:
    """Write the sharpened map of every class to the top of the run; B-factors and efficiencies for run.json."""
    told = [sharpen_class(engine, state, number, output) for number in range(1, len(state.classes) + 1)]
    return {name: [one[name] for one in told] for name in told[0]}


def sharpen_class(engine: Engine, state: RefinementState, number: int, output: Path) -> dict[str, Any]:
    """The sharpened map of class `number` (from 1) to a file; its figures."""
    one = state.classes[number - 1]
    if one.halves is None or one.fsc is None or one.mask is None:
        raise ValueError("only a class after an iteration can be sharpened")
    resolution_a = min(one.resolution_a, engine.settings.schedule.initial_resolution)  # infinite where nothing was found
    given = engine.settings.postprocess.given_b_factor_a2
    _, b_factor_a2, sharp = sharpen_halves(one.halves, one.mask, one.fsc, resolution_a, given,
                                          engine.storage.makes)
    write_map(output / layout.sharpened_name(number), sharp)
    return {"class_b_factor_a2": b_factor_a2, "class_orientation_efficiency": efficiency(engine, state, one, number)}


def efficiency(engine: Engine, state: RefinementState, one: ClassState, number: int) -> float | None:
    """Of the views of the particles in class `number` (from 1); None where it is empty."""
    if state.assignment is None or one.combined is None:
        return None
    members = np.flatnonzero(state.assignment.class_id == number - 1)
    if not len(members):
        return None
    diameter_a = particle_diameter_px(one.combined) * engine.spectra.band.pixel_size_a
    size = diameter_a / min(one.resolution_a, engine.settings.schedule.initial_resolution)
    return orientation_coverage(state.assignment.image_to_volume[members], engine.operators, size).efficiency
