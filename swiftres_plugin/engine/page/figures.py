"""What the report of a run shows, as numbers: plain lists and texts that go into the page as JSON."""
from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from swiftres_plugin import layout
from swiftres_plugin.engine.data.maps import Fsc, Map
from swiftres_plugin.engine.data.particles import Particles
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.io.mrc import read_header, read_map
from swiftres_plugin.engine.io.star import read_particles
from swiftres_plugin.engine.io.symmetry import open_symmetry
from swiftres_plugin.engine.io.tables import read_fsc
from swiftres_plugin.engine.maths.fourier import crop_or_pad, resample_cube
from swiftres_plugin.engine.scratch import Storage
from swiftres_plugin.errors import InputError
from swiftres_plugin.settings import leaves

CURVES = ("unmasked", "masked", "randomised", "corrected")
HISTOGRAM_BINS = 48
LEAST_MAP_PX = 128  # of the maps that pictures are made of, where larger ones are averaged
SLICE_PX = 128  # widest slice in the page
SURFACE_VOXELS = 900_000  # of all classes together: some 1.2 MB of text
WIDEST_SURFACE_PX = 96
MARGIN_PX = 3
FILLED = 0.2  # share of the mask that the first surface encloses: solvent masks are drawn generously
VIEWS_PER_CELL = 20  # that a cell of the map of views holds on average


def gather(run: Path) -> dict[str, Any]:
    """Everything the page shows of the run in folder `run`, finished or not.

    Raises `InputError` where no iteration is finished.
    """
    record = _read_json(run / layout.RUN)
    asked = _read_json(run / layout.SETTINGS)
    count = len(record["class_sizes"])
    particles = read_particles(run / layout.PARTICLES)
    return {
        "title": f"swiftres: {run.resolve().name}", "facts": facts(record, asked, run), "record": record,
        "command": command_line(asked), "settings": setting_rows(record["settings"]),
        "classes": [class_figures(run, number, count) for number in range(1, count + 1)],
        "particles": particle_figures(run, particles, record["settings"]["schedule"]["symmetry"])}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError("no finished iteration to report", where=path.parent, found=f"no {path.name}",
                         expected="the folder of a run of 'swiftres refine'") from error
    except ValueError as error:
        raise InputError("cannot be read", where=path, found=str(error), expected="a file written by a run") from error


# ------------------------------------------------------------------------------------------------ texts

def facts(record: dict[str, Any], asked: dict[str, Any], run: Path) -> list[tuple[str, str]]:
    """Name and value of what one looks for first."""
    last = record["iterations"][-1]
    ended = "at rest" if record["at_rest"] else "not at rest"
    device = record["device"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return [
        ("Resolution (FSC 0.143)", resolution_text(record["resolution_a"])),
        ("Iterations", f"{last['number']} ({ended})"),
        ("Particles", f"{record['particles']:,}"),
        ("Symmetry", record["settings"]["schedule"]["symmetry"]),
        ("Time", f"{record['seconds']:,.0f} s, ended {_time_of(run / layout.RUN)}"),
        ("Device", f"{device['kind']} ({device['name']}), {device['threads']} threads"),
        ("Peak memory", f"{record['peak_memory_bytes'] / 1e9:.2f} GB"),
        ("Versions", versions),
        ("Input particles", asked["inputs"]["particles"]),
        ("Starting map", ", ".join(asked["inputs"]["references"])),
        ("Mask", asked["inputs"]["mask"] or "none given"),
        ("Folder", str(run.resolve()))]


def resolution_text(value_a: float | None) -> str:
    return "none" if value_a is None else f"{value_a:.2f} Å"


def _time_of(path: Path) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))


def setting_rows(settings: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Each setting with its branch, unit, help and whether it was changed."""
    rows = []
    for branch, leaf in leaves():
        value = settings.get(branch, {}).get(leaf.name, leaf.default)
        says = leaf.metadata["choice"]
        rows.append({"branch": branch, "name": leaf.name, "value": _shown(value), "unit": says.unit, "help": says.help,
                     "changed": value != leaf.default})
    return rows


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def command_line(asked: dict[str, Any]) -> list[str]:
    """Words of the command that repeats the run."""
    inputs = asked["inputs"]
    words = ["swiftres", "refine", "--particles", inputs["particles"]]
    for reference in inputs["references"]:
        words += ["--reference", reference]
    words += ["--mask", inputs["mask"]] if inputs["mask"] else []
    for row in setting_rows(asked["settings"]):
        if row["changed"]:
            words += _option(row["name"], asked["settings"][row["branch"]][row["name"]])
    return [*words, "--output", "NEW_FOLDER"]


def _option(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", _shown(value)]


# ----------------------------------------------------------------------------------------------- classes

def class_figures(run: Path, number: int, count: int) -> dict[str, Any]:
    """Curves of every iteration, slices and the volume of class `number` of `count`."""
    density = coarse_map(run / layout.map_name(number))
    halves = [coarse_map(run / layout.half_name(half, number)).voxels for half in (1, 2)]
    mask = coarse_map(run / layout.mask_name(number)).voxels
    shown = {"map": density.voxels, "half map 1": halves[0], "half map 2": halves[1],
             "half of the difference": (halves[0] - halves[1]) / 2}
    return {"fsc": iteration_curves(run, number),
            "slices": {name: slices_of(voxels) for name, voxels in shown.items()},
            "width_a": round(density.box_px * density.pixel_size_a, 3),
            "surface": surface_volume(density, mask, surface_px(count))}


def coarse_map(path: Path) -> Map:
    """A map, one of several times `LEAST_MAP_PX` as means of blocks; an incomplete last block is left out."""
    block = read_header(path).shape[0] // LEAST_MAP_PX
    if block <= 1:
        return read_map(path)
    large = read_map(path, empty=Storage(path.parent).empty)
    side = large.box_px // block
    parts = large.voxels[:side * block, :side * block, :side * block].reshape(side, block, side, block, side, block)
    return Map(parts.mean(axis=(1, 3, 5)), large.pixel_size_a * block, large.origin_a)


def iteration_curves(run: Path, number: int) -> dict[str, Any]:
    """The FSC curves of class `number` after each iteration, and the frequencies (1/A) that they share."""
    found = [(at, read_fsc(path)) for at, folder in layout.finished_iterations(run)
             if (path := folder / layout.fsc_name(number)).exists()]
    if not found:
        raise InputError("no finished iteration to report", where=run, found=f"no {layout.fsc_name(number)}")
    return {"frequency": _rounded(found[-1][1].frequency, 7),
            "iterations": [{"number": at, **curves_of(fsc)} for at, fsc in found]}


def curves_of(fsc: Fsc) -> dict[str, Any]:
    """The curves as lists, and the resolution (A) of each where there is one."""
    reached = {name: fsc.resolution_a(curve=name) for name in CURVES}
    return {"curves": {name: _rounded(getattr(fsc, name), 4) for name in CURVES},
            "resolution_a": {name: round(value, 3) if np.isfinite(value) else None for name, value in reached.items()}}


def _rounded(values: np.ndarray, digits: int) -> list[float | None]:
    """A list for JSON, which knows no NaN."""
    return [round(float(value), digits) if np.isfinite(value) else None for value in values]


def slices_of(voxels: np.ndarray) -> dict[str, Any]:
    """The central slices across x, y and z as bytes, from 0 for the lowest value to 255 for the highest.

    Rows are z, z and y, columns y, x and x.
    """
    images = [_binned(voxels.take(voxels.shape[0] // 2, axis)) for axis in (2, 1, 0)]
    low, high = min(float(i.min()) for i in images), max(float(i.max()) for i in images)
    scale = 255 / max(high - low, 1e-30)
    return {"px": images[0].shape[0], "low": low, "high": high,
            "planes": [as_text(np.round((image - low) * scale)) for image in images]}


def _binned(image: np.ndarray) -> np.ndarray:
    """Means of blocks of pixels, so that an image is no wider than `SLICE_PX`; an incomplete last block is left out."""
    block = -(-len(image) // SLICE_PX)
    side = len(image) // block
    return image[: side * block, : side * block].reshape(side, block, side, block).mean(axis=(1, 3))


def surface_px(count: int) -> int:
    """Side of the volume in the page when there are `count` classes."""
    return min(WIDEST_SURFACE_PX, round((SURFACE_VOXELS / count) ** (1 / 3)))


def surface_volume(density: Map, mask: np.ndarray, widest_px: int) -> dict[str, Any]:
    """The part of the map inside the mask, no wider than `widest_px`, as bytes of the square root of its share of the top.

    Negative density is solvent and becomes 0; the root keeps steps small where surfaces are drawn. level: share of the top
    that encloses the particle, a first guess.
    """
    inside = mask > 0.5
    side = _side_holding(inside)
    voxels = crop_or_pad(torch.from_numpy(np.ascontiguousarray(density.voxels)), side)
    pixel_size_a, level = density.pixel_size_a, _level(density.voxels, inside)
    if side > widest_px:
        voxels, pixel_size_a = resample_cube(voxels, widest_px), pixel_size_a * side / widest_px
    top = max(float(voxels.max()), 1e-30)
    shares = (voxels.numpy() / top).clip(0, 1)
    return {"px": len(shares), "pixel_size_a": pixel_size_a, "top": top, "level": float(np.clip(level / top, 0.02, 0.95)),
            "voxels": as_text(np.round(255 * np.sqrt(shares)))}


def _side_holding(inside: np.ndarray) -> int:
    """Side of the smallest centred cube that holds `inside` (n, n, n) bool and a margin, at most n."""
    box = len(inside)
    where = np.argwhere(inside)
    reach = np.abs(where - box // 2).max() if len(where) else box // 2
    return min(box, 2 * (int(reach) + MARGIN_PX))


def _level(voxels: np.ndarray, inside: np.ndarray) -> float:
    values = voxels[inside] if inside.any() else voxels.ravel()
    return float(np.quantile(values, 1 - FILLED))


def as_text(values: np.ndarray) -> str:
    """Numbers from 0 to 255 as base64 of their bytes."""
    return base64.b64encode(values.astype(np.uint8).tobytes()).decode("ascii")


# ----------------------------------------------------------------------------------------------- particles

def particle_figures(run: Path, particles: Particles, symmetry: str) -> dict[str, Any]:
    """Views, scores and posterior widths."""
    scores = particles.scores
    values = {"Log-likelihood of the pose": scores.get("log_likelihood"),
              "Posterior share of the best pose": scores.get("max_probability"), **posterior_widths(run)}
    return {"count": len(particles), "halves": [int((particles.half == h).sum()) for h in (0, 1)]
            if particles.half is not None else [],
            "views": view_map(particles, symmetry),
            "histograms": [histogram(name, found) for name, found in values.items() if found is not None]}


def posterior_widths(run: Path) -> dict[str, np.ndarray]:
    """Widths of orientation (degrees) and shift (A) of the last iteration that kept them; empty where none did."""
    for _, folder in reversed(layout.finished_iterations(run)):
        try:
            with np.load(folder / layout.ARRAYS) as arrays:
                found = Assignment(*(arrays[name] for name in Assignment.__slots__))
        except (OSError, KeyError, ValueError, EOFError, BadZipFile):
            continue
        return {"Posterior width of the orientation (degrees)": np.rad2deg(found.angle_spread_rad),
                "Posterior width of the shift (Å)": found.shift_spread_a}
    return {}


def histogram(name: str, values: np.ndarray) -> dict[str, Any]:
    """Counts over the range that holds all but one value in two hundred at either end, and the median."""
    values = values[np.isfinite(values)]
    if not len(values):
        return {"name": name, "edges": [0.0, 1.0], "counts": [0], "median": None, "left_out": 0}
    low, high = (float(np.quantile(values, share)) for share in (0.005, 0.995))
    if high - low < 1e-9 * max(abs(high), 1e-30):
        low, high = min(0.0, low), max(1.0, high)
    counts, edges = np.histogram(values, HISTOGRAM_BINS, (low, high))
    return {"name": name, "edges": [float(f"{edge:.6g}") for edge in edges], "counts": counts.tolist(),
            "median": float(f"{np.median(values):.5g}"), "left_out": int(len(values) - counts.sum())}


def view_map(particles: Particles, symmetry: str) -> dict[str, Any] | None:
    """Views on a grid of cells of equal area, longitude by sine of the latitude, relative to even views.

    Every particle counts at all its symmetry mates.
    """
    if particles.poses is None:
        return None
    beams = np.einsum("sij,nj->sni", open_symmetry(symmetry), particles.poses.image_to_volume[:, :, 2]).reshape(-1, 3)
    rows = int(np.clip(np.sqrt(len(beams) / (2 * VIEWS_PER_CELL)), 6, 36))
    edges = np.linspace(-np.pi, np.pi, 2 * rows + 1), np.linspace(-1, 1, rows + 1)
    longitude = np.arctan2(beams[:, 1], beams[:, 0])
    counts, _, _ = np.histogram2d(longitude, np.clip(beams[:, 2], -1, 1), bins=edges)
    return {"rows": rows, "relative": [_rounded(row, 3) for row in (counts / counts.mean()).T]}

