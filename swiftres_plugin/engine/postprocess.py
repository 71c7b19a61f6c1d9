"""What follows a refinement: FSC, sharpened map, local and directional resolution, and how even the views are."""
from __future__ import annotations

import importlib.util
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import swiftres_plugin
from swiftres_plugin import layout
from swiftres_plugin.engine.checks import check_mask
from swiftres_plugin.engine.data.maps import Fsc, HalfMaps, Map
from swiftres_plugin.engine.data.quality import Coverage, DirectionalFsc, Guinier
from swiftres_plugin.engine.io.mrc import read_half_maps, read_map, write_map
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.io.symmetry import open_symmetry
from swiftres_plugin.engine.io.tables import write_fsc, write_json, write_table
from swiftres_plugin.engine.maths.geometry import direction_counts, direction_grid
from swiftres_plugin.engine.maths.padded import Empty
from swiftres_plugin.engine.report import Reporter
from swiftres_plugin.engine.stages.directional import directional_fsc, half_sphere
from swiftres_plugin.engine.stages.local_resolution import local_resolution
from swiftres_plugin.engine.stages.orientations import coverage
from swiftres_plugin.engine.stages.postprocess import averaged, compute_fsc, particle_diameter_px, solvent_mask
from swiftres_plugin.engine.stages.sharpen import guinier, sharpened
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import RefineSettings

THRESHOLD = 0.143
# A window or a cone holds few independent coefficients, whose chance correlation reaches 0.143: they cross higher up.
PART_THRESHOLD = 0.5
DIRECTION_STEP_RAD = 0.25  # between the axes of cones that are 0.7 rad wide
EXTENT_STEP_RAD = 0.15  # between directions in which the point spread function is measured
VIEW_STEP_RAD = 0.07  # views within one such cell count as the same


@dataclass(frozen=True, eq=False)
class Postprocessed:
    """All that is made of two half maps. resolution_a: corrected FSC 0.143; b_factor_a2: as applied, negative sharpens."""

    mask: np.ndarray
    fsc: Fsc
    resolution_a: float
    guinier: Guinier
    b_factor_a2: float
    sharpened: Map
    local_a: Map
    directional: DirectionalFsc
    coverage: Coverage | None


@dataclass(frozen=True)
class PostprocessInputs:
    """The files of `swiftres postprocess`; empty where not given. `pixel_size_a` 0 takes that of the headers."""

    half1: str
    half2: str
    mask: str = ""
    particles: str = ""
    pixel_size_a: float = 0.0


def postprocess(halves: HalfMaps, mask: np.ndarray | None, settings: RefineSettings, reporter: Reporter,
                image_to_volume: np.ndarray | None = None) -> Postprocessed:
    """Everything of two half maps; the efficiency of the views too where the particles' rotations (N, 3, 3) are known.

    Raises `InputError` when the halves do not agree on anything, or the symmetry of the settings is not known.
    """
    window = found_mask(halves) if mask is None else mask
    fsc = compute_fsc(halves, window, settings.compute.seed)
    resolution_a = fsc.resolution_a(THRESHOLD)
    if not math.isfinite(resolution_a):
        raise InputError("the half maps have nothing in common", found="an FSC below 0.143 from the first shell on",
                         expected="two halves of one reconstruction, in one frame")
    asked_for = settings.postprocess.given_b_factor_a2
    plot, b_factor_a2, map_sharpened = sharpen_halves(halves, window, fsc, resolution_a, asked_for)
    if asked_for is None and math.isnan(plot.slope):
        reporter.message(f"The resolution ({resolution_a:.2f} A) leaves too few shells beyond 10 A to fit a B-factor.")
    reporter.message("Local resolution")
    local = local_resolution(halves, window > 0, resolution_a, PART_THRESHOLD)
    reporter.message("Directional FSC")
    directional = directional_fsc(halves, window, fsc, half_sphere(direction_grid(DIRECTION_STEP_RAD)), PART_THRESHOLD)
    views = None
    if image_to_volume is not None:
        diameter_a = particle_diameter_px(map_sharpened.voxels * window) * map_sharpened.pixel_size_a
        views = orientation_coverage(image_to_volume, open_symmetry(settings.schedule.symmetry), diameter_a / resolution_a)
    average = halves.first
    return Postprocessed(window, fsc, resolution_a, plot, b_factor_a2, map_sharpened,
                         Map(local, average.pixel_size_a, average.origin_a), directional, views)


def found_mask(halves: HalfMaps) -> np.ndarray:
    """A soft mask around the density that both halves show."""
    box = halves.first.box_px
    resolution_a = min(compute_fsc(halves).resolution_a(THRESHOLD), 60.0)
    return solvent_mask(halves.average.voxels, halves.first.pixel_size_a, resolution_a, 0.48 * box)


def sharpen_halves(halves: HalfMaps, mask: np.ndarray, fsc: Fsc, resolution_a: float,
                   b_factor_a2: float | None, empty: Empty | None = None) -> tuple[Guinier, float, Map]:
    """Guinier plot, the B-factor that was given or else fitted (0 where no line fits), and the sharpened map.

    empty: makes maps and transforms.
    """
    average = averaged(halves, empty)
    plot = guinier(average, mask, fsc, resolution_a, empty)
    if b_factor_a2 is None:
        b_factor_a2 = 0.0 if math.isnan(plot.slope) else plot.b_factor_a2
    return plot, b_factor_a2, sharpened(average, fsc, b_factor_a2, resolution_a, empty)


def orientation_coverage(image_to_volume: np.ndarray, operators: np.ndarray, diameter: float) -> Coverage:
    """How the views of rotations (N, 3, 3), and of their mates under operators (|G|, 3, 3), cover Fourier space.

    diameter: of the particle, in units of the resolution.
    """
    beams = image_to_volume[:, :, 2]
    counts = sum(direction_counts(beams @ operator.T, VIEW_STEP_RAD) for operator in operators)
    seen = np.flatnonzero(counts)
    return coverage(direction_grid(VIEW_STEP_RAD)[seen], np.asarray(counts)[seen],
                    half_sphere(direction_grid(EXTENT_STEP_RAD)), diameter)


# ------------------------------------------------------------------------------------------------ files

def postprocess_files(inputs: PostprocessInputs, settings: RefineSettings, output: Path, reporter: Reporter) -> Postprocessed:
    """Read, check, work, and write maps, tables, pictures and `postprocess.json` to the folder `output`.

    Raises `InputError` before any work where a file cannot be used or the folder holds results already.
    """
    began = time.time()
    check_new(output)
    halves = read_half_maps(inputs.half1, inputs.half2, inputs.pixel_size_a)
    mask = opened_mask(inputs, halves)
    rotations = opened_rotations(inputs.particles) if inputs.particles else None
    open_symmetry(settings.schedule.symmetry)
    output.mkdir(parents=True, exist_ok=True)
    result = postprocess(halves, mask, settings, reporter, rotations)
    write_maps_and_tables(result, output, with_mask=mask is None)
    draw(result, output, reporter)
    told = {"inputs": vars(inputs), "settings": asked(settings), "version": swiftres_plugin.__version__,
            "box_px": halves.first.box_px, "pixel_size_a": halves.first.pixel_size_a, **figures(result),
            "seconds": round(time.time() - began, 1)}
    write_json(output / layout.POSTPROCESS, told)
    return result


def check_new(output: Path) -> None:
    """Raises `InputError` when `output` is a file or holds results of a post-processing."""
    if output.exists() and not output.is_dir():
        raise InputError("the output is a file", where=output, expected="a folder that is new or empty")
    for name in (layout.POSTPROCESS, layout.MAP_SHARPENED, layout.LOCAL_RESOLUTION, layout.MASK, layout.FSC,
                 layout.GUINIER, layout.DIRECTIONAL_FSC, layout.DIRECTIONS):
        if (output / name).exists():
            raise InputError("the output folder already holds results", where=output / name, remedy="Name another folder.")


def opened_mask(inputs: PostprocessInputs, halves: HalfMaps) -> np.ndarray | None:
    """The voxels of the mask, checked against the half maps; None when there is no mask."""
    if not inputs.mask:
        return None
    mask = read_map(inputs.mask, inputs.pixel_size_a)
    check_mask(mask, halves.first.box_px, halves.first.pixel_size_a, inputs.mask)
    return mask.voxels


def opened_rotations(path: str) -> np.ndarray:
    """(N, 3, 3) rotations of the particles in a STAR file."""
    poses = read_particles(path).poses
    if poses is None:
        raise InputError("the efficiency of orientations needs poses", where=path, found="no angle columns",
                         expected="rlnAngleRot, rlnAngleTilt and rlnAnglePsi")
    return poses.image_to_volume


def write_maps_and_tables(result: Postprocessed, output: Path, with_mask: bool) -> None:
    write_map(output / layout.MAP_SHARPENED, result.sharpened)
    write_map(output / layout.LOCAL_RESOLUTION, result.local_a)
    if with_mask:
        write_map(output / layout.MASK, Map(result.mask, result.local_a.pixel_size_a, result.local_a.origin_a))
    write_fsc(output / layout.FSC, result.fsc)
    plot, by = result.guinier, result.directional
    write_table(output / layout.GUINIER, {
        "square_frequency": plot.square_frequency, "log_amplitude": plot.log_amplitude, "fitted": plot.fitted.astype(int)})
    write_table(output / layout.DIRECTIONAL_FSC, {
        "frequency": by.frequency, "mean": by.curve.mean(0), "deviation": by.curve.std(0), "lowest": by.curve.min(0),
        "highest": by.curve.max(0)})
    x, y, z = by.direction.T
    write_table(output / layout.DIRECTIONS, {"x": x, "y": y, "z": z, "resolution_a": by.resolution_a})


def draw(result: Postprocessed, output: Path, reporter: Reporter) -> None:
    """All pictures, where matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        reporter.warning("matplotlib is not installed: there are no pictures.")
        return
    from swiftres_plugin.engine.io import pictures
    pictures.draw_fsc(output / "fsc.png", result.fsc)
    pictures.draw_guinier(output / "guinier.png", result.guinier, result.b_factor_a2)
    pictures.draw_local_resolution(output / "local_resolution.png", result.sharpened, result.local_a, result.mask)
    pictures.draw_directional(output / "directional_fsc.png", result.directional)
    if result.coverage is not None:
        pictures.draw_views(output / "orientations.png", result.coverage)


def asked(settings: RefineSettings) -> dict[str, Any]:
    """The settings that matter here."""
    return {"symmetry": settings.schedule.symmetry, "bfactor": settings.postprocess.bfactor, "seed": settings.compute.seed}


def figures(result: Postprocessed) -> dict[str, Any]:
    """What stands in postprocess.json; None where there is no number."""
    fsc, plot, by = result.fsc, result.guinier, result.directional
    inside = result.local_a.voxels[result.mask > 0.5]
    limits = {curve: {str(level): finite(fsc.resolution_a(level, curve)) for level in (0.143, 0.5)}
              for curve in ("unmasked", "masked", "corrected")}
    return {
        "resolution_a": result.resolution_a, "fsc_resolution_a": limits, "b_factor_a2": result.b_factor_a2,
        "guinier": {"shells": int(plot.fitted.sum()), "slope_a2": finite(plot.slope), "intercept": finite(plot.intercept)},
        "local_resolution_a": spread(inside), "directional_resolution_a": spread(by.resolution_a),
        "anisotropy": finite(by.anisotropy),
        "orientation_efficiency": None if result.coverage is None else result.coverage.efficiency}


def spread(values: np.ndarray) -> dict[str, float | None]:
    """The middle and nine tenths of some resolutions; values that occur, as not all need be finite."""
    names = {"finest_5_percent": 5, "median": 50, "coarsest_5_percent": 95}
    return {name: finite(float(np.percentile(values, share, method="nearest"))) if values.size else None
            for name, share in names.items()}


def finite(value: float) -> float | None:
    """JSON has no infinity and no NaN."""
    return float(value) if math.isfinite(value) else None
