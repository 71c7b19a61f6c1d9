"""Particles from and to RELION STAR files: the only place with rln names, Euler angles and degrees.

Reads RELION 3.1, 4 and 5 (optics and particles tables) and RELION 3.0 (one table); writes RELION 3.1.
Labels after https://relion.readthedocs.io/en/latest/Reference/Conventions.html.
"""
from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..data.particles import Ctf, Optics, Particles, Poses
from ..maths.geometry import euler_to_matrix, matrix_to_euler
from .files import written_atomically
from .mrc import read_header
from .star_aberrations import TILT, aberration_columns, aberrations, damping_columns, damping_of
from .star_tables import Table, format_table, read_tables

DEFOCUS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
ORIGINS_A = ("rlnOriginXAngst", "rlnOriginYAngst")
ORIGINS_PX = ("rlnOriginX", "rlnOriginY")
MICROSCOPE = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
OLD_PIXEL = ("rlnDetectorPixelSize", "rlnMagnification")
OPTICS_COLUMNS = (*MICROSCOPE, "rlnOpticsGroup", "rlnOpticsGroupName", "rlnImagePixelSize", "rlnImageSize",
                  "rlnCtfDataArePhaseFlipped", "rlnCtfDataAreCtfPremultiplied")
SCORES = {"class_id": "rlnClassNumber", "log_likelihood": "rlnLogLikeliContribution",
          "max_probability": "rlnMaxValueProbDistribution"}
PARTICLE_COLUMNS = (*DEFOCUS, *ANGLES, *ORIGINS_A, *ORIGINS_PX, *SCORES.values(), "rlnImageName", "rlnOpticsGroup",
                    "rlnPhaseShift", "rlnRandomSubset")
PIXEL_TOLERANCE = 1e-4


# --------------------------------------------------------------------------------------------- reading

def read_particles(path: Path | str) -> Particles:
    """The particles of a STAR file, in its order; `particle_id` is the row.

    `poses` is None without angle columns, `half` is None unless both half sets occur in rlnRandomSubset. Columns that
    the engine does not interpret are kept as strings. Stacks are looked for beside the STAR file, in the current
    folder, and in the folders above the STAR file.

    Raises `InputError` where the file lacks something needed.
    """
    path = Path(path)
    rows, optics_rows = _particle_and_optics_tables(path)
    paths, stack_index, slice_index = _images(path, rows)
    table, group = _optics_from_particles(path, rows) if optics_rows is None else _groups_in_use(path, rows, optics_rows)
    damping = damping_of(rows, table, group, lambda columns, label: _numbers(path, columns, label))
    ctf = _ctf(path, rows, damping)
    _, first = np.unique(group, return_index=True)
    optics, extra_optics = _optics(path, rows, table, [paths[stack] for stack in stack_index[first]])
    pixel_size_a = np.array([o.pixel_size_a for o in optics])[group]
    return Particles(
        particle_id=np.arange(len(ctf), dtype=np.int64), stack_paths=paths, stack_index=stack_index,
        slice_index=slice_index, optics=optics, optics_group=group, ctf=ctf, half=_half(path, rows),
        poses=_poses(path, rows, pixel_size_a), scores=_scores(path, rows),
        extra={k: np.array(v) for k, v in rows.items() if k not in PARTICLE_COLUMNS and k not in damping},
        extra_optics={k: v for k, v in extra_optics.items() if k not in damping})


def _particle_and_optics_tables(path: Path) -> tuple[Table, Table | None]:
    """The particles table, and the optics table or None in a RELION 3.0 file."""
    tables = read_tables(path)
    rows = next((tables[name] for name in ("particles", "images", "") if name in tables), None)
    if rows is None:
        rows = next((table for name, table in tables.items() if "rlnImageName" in table), None)
    if rows is None or "rlnImageName" not in rows:
        raise InputError("no table of particles", where=path, found=", ".join(f"data_{name}" for name in tables),
                         expected="a table with rlnImageName", remedy="Give the STAR file of particles.")
    if not rows["rlnImageName"]:
        raise InputError("the table of particles is empty", where=path)
    return rows, tables.get("optics")


def _images(path: Path, rows: Table) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Stacks (resolved paths), and for each particle which stack and which image (0-based) in it."""
    number_of: dict[str, int] = {}
    stack_index = np.empty(len(rows["rlnImageName"]), np.int64)
    slice_index = np.empty_like(stack_index)
    for i, name in enumerate(rows["rlnImageName"]):
        index, at, stack = name.partition("@")
        if at and not index.isdigit():
            raise InputError("cannot read the image name", where=f"{path}, particle {i + 1}", found=name,
                             expected="like 000001@stack.mrcs")
        slice_index[i] = int(index) - 1 if at else 0
        stack_index[i] = number_of.setdefault(stack if at else name, len(number_of))
    if slice_index.min() < 0:
        raise InputError("image numbers start at 1", where=f"{path}, particle {np.argmin(slice_index) + 1}", found=0)
    return tuple(_resolved(stack, path.parent) for stack in number_of), stack_index, slice_index


def _resolved(stack: str, folder: Path) -> str:
    """The stack beside the STAR file, else in the current folder, else above the STAR file (a project's root)."""
    stack = re.sub(r":mrcs?$", "", stack)
    folder = Path(os.path.abspath(folder))
    for base in (folder, Path.cwd(), *folder.parents):
        if (base / stack).exists():
            return os.path.normpath(base / stack)
    return os.path.normpath(folder / stack)


def _ctf(path: Path, rows: Table, damping: Mapping[str, np.ndarray]) -> Ctf:
    missing = [label for label in DEFOCUS if label not in rows]
    if missing:
        raise InputError("the particles have no CTF", where=path, found=f"no column {', '.join(missing)}",
                         remedy="Estimate the CTF first, and give the STAR file that holds it.")
    u, v, angle = (_numbers(path, rows, label) for label in DEFOCUS)
    phase = _numbers(path, rows, "rlnPhaseShift") if "rlnPhaseShift" in rows else np.zeros(len(u))
    return Ctf(u, v, np.deg2rad(angle), np.deg2rad(phase), damping.get("rlnCtfBfactor"), damping.get("rlnCtfScalefactor"))


def _poses(path: Path, rows: Table, pixel_size_a: np.ndarray) -> Poses | None:
    if not all(label in rows for label in ANGLES):
        return None
    rot, tilt, psi = (np.deg2rad(_numbers(path, rows, label)) for label in ANGLES)
    shift_a = np.zeros((len(rot), 2))
    for labels, unit_a in ((ORIGINS_A, 1.0), (ORIGINS_PX, pixel_size_a[:, None])):
        if all(label in rows for label in labels):
            shift_a = unit_a * np.stack([_numbers(path, rows, label) for label in labels], axis=1)
            break
    return Poses(euler_to_matrix(rot, tilt, psi), shift_a)


def _half(path: Path, rows: Table) -> np.ndarray | None:
    if "rlnRandomSubset" not in rows:
        return None
    subset = _numbers(path, rows, "rlnRandomSubset")
    found = set(np.unique(subset))
    if len(found) == 1:
        return None
    if found != {1.0, 2.0}:
        raise InputError("rlnRandomSubset must be 1 or 2 for every particle", where=path,
                         found=", ".join(f"{value:g}" for value in sorted(found)),
                         remedy="Remove the column: the halves are then drawn anew.")
    return subset.astype(np.int64) - 1


def _scores(path: Path, rows: Table) -> dict[str, np.ndarray]:
    scores = {name: _numbers(path, rows, label) for name, label in SCORES.items() if label in rows}
    if "class_id" in scores:
        scores["class_id"] = scores["class_id"].astype(np.int64) - 1
    return scores


def _numbers(path: Path, table: Table, label: str) -> np.ndarray:
    """Column `label` as (N,) float64; raises `InputError` naming the row that is no finite number."""
    try:
        values = np.array(table[label], dtype=np.float64)
    except ValueError:
        values = np.array([_number_or_nan(text) for text in table[label]])
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        row = int(wrong[0])
        raise InputError("is no number", where=f"{path}, {label}, row {row + 1}", found=f"'{table[label][row]}'")
    return values


def _number_or_nan(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


# ---------------------------------------------------------------------------------------------- optics

def _optics(path: Path, rows: Table, table: Table,
            first_stacks: list[str]) -> tuple[tuple[Optics, ...], dict[str, tuple[str, ...]]]:
    """The groups of `table`, and its uninterpreted columns; `first_stacks` holds the first images of each group."""
    _check_microscope(path, table)
    if "rlnCtfDataAreCtfPremultiplied" in table and _numbers(path, table, "rlnCtfDataAreCtfPremultiplied").any():
        raise InputError("images already multiplied by their CTF are not supported", where=path,
                         remedy="Extract the particles again without premultiplication.")
    optics = _optics_of(path, table, _pixel_sizes(path, rows, table, first_stacks), _boxes(path, table, first_stacks))
    return optics, {k: tuple(v) for k, v in table.items() if k not in OPTICS_COLUMNS}


def read_optics(path: Path | str, pixel_size_a: float, box_px: int) -> tuple[Optics, ...]:
    """The groups of a STAR file's optics table, for images of the given pixel and box.

    Raises `InputError` where the file has none, or one that lacks something needed.
    """
    path = Path(path)
    table = read_tables(path).get("optics")
    if not table or not next(iter(table.values())):
        raise InputError("no optics groups", where=path, expected="a table data_optics (RELION 3.1 or later)")
    _check_microscope(path, table)
    groups = len(table["rlnVoltage"])
    return _optics_of(path, table, np.full(groups, pixel_size_a), np.full(groups, box_px))


def _check_microscope(path: Path, table: Table) -> None:
    missing = [label for label in MICROSCOPE if label not in table]
    if missing:
        raise InputError("the optics table lacks columns", where=path, found=f"no {', '.join(missing)}",
                         remedy="Add them: they are needed for the CTF.")


def _optics_of(path: Path, table: Table, pixels: np.ndarray, boxes: np.ndarray) -> tuple[Optics, ...]:
    """The groups of `table`; columns that they hold afterwards leave it."""
    beyond = aberrations(path, table, lambda label: _numbers(path, table, label))
    volts, spherical_mm, contrasts = (_numbers(path, table, label) for label in MICROSCOPE)
    flipped = _numbers(path, table, "rlnCtfDataArePhaseFlipped") if "rlnCtfDataArePhaseFlipped" in table else 0 * volts
    names = table.get("rlnOpticsGroupName", [f"opticsGroup{g + 1}" for g in range(len(volts))])
    return tuple(Optics(float(volts[g]), float(spherical_mm[g]), float(contrasts[g]), float(pixels[g]), int(boxes[g]),
                        bool(flipped[g]), names[g], **beyond[g])  # type: ignore[arg-type]
                 for g in range(len(volts)))


def _groups_in_use(path: Path, rows: Table, optics_rows: Table) -> tuple[Table, np.ndarray]:
    """Rows of the optics table that have particles, and the row of each particle."""
    if "rlnOpticsGroup" not in rows or "rlnOpticsGroup" not in optics_rows:
        if len(next(iter(optics_rows.values()))) != 1:
            raise InputError("rlnOpticsGroup is missing", where=path, remedy="Add it to both tables.")
        return optics_rows, np.zeros(len(rows["rlnImageName"]), np.int64)
    numbers = _numbers(path, optics_rows, "rlnOpticsGroup")
    of_particle = _numbers(path, rows, "rlnOpticsGroup")
    unknown = ~np.isin(of_particle, numbers)
    if unknown.any():
        at = int(np.argmax(unknown))
        raise InputError("the optics group is not in the optics table", where=f"{path}, particle {at + 1}",
                         found=f"{of_particle[at]:g}", expected="one of " + ", ".join(f"{g:g}" for g in numbers))
    used = np.flatnonzero(np.isin(numbers, of_particle))
    used = used[np.argsort(numbers[used])]
    group = np.asarray(np.searchsorted(numbers[used], of_particle))
    return {label: [values[g] for g in used] for label, values in optics_rows.items()}, group


def _optics_from_particles(path: Path, rows: Table) -> tuple[Table, np.ndarray]:
    """RELION 3.0: one group for each set of microscope values; those columns move from `rows` to the optics table."""
    missing = [label for label in MICROSCOPE if label not in rows]
    if missing:
        raise InputError("no optics", where=path, found=f"neither a table data_optics nor {', '.join(missing)}",
                         expected="a table data_optics (RELION 3.1 or later)",
                         remedy="Export the particles from RELION 3.1 or later, or add the table.")
    moved = [label for label in (*MICROSCOPE, *OLD_PIXEL, *TILT, "rlnImagePixelSize", "rlnPixelSize", "rlnImageSize")
             if label in rows]
    values = np.stack([_numbers(path, rows, label) for label in moved], axis=1)
    _, first, group = np.unique(values, axis=0, return_index=True, return_inverse=True)
    table = {label: [rows[label][i] for i in first] for label in moved}
    if "rlnPixelSize" in table:
        table.setdefault("rlnImagePixelSize", table.pop("rlnPixelSize"))
    if all(label in table for label in OLD_PIXEL):
        # Micrometres on the detector over the magnification.
        detector, magnification = (np.array(table.pop(label), float) for label in OLD_PIXEL)
        table.setdefault("rlnImagePixelSize", [repr(float(p)) for p in detector * 1e4 / magnification])
    for label in moved:
        del rows[label]
    return table, group.reshape(-1)


def _pixel_sizes(path: Path, rows: Table, table: Table, first_stacks: list[str]) -> np.ndarray:
    """Of each group: from the optics table, else from the particles, else from the header of its first stack."""
    groups = len(table["rlnVoltage"])
    if "rlnImagePixelSize" in table:
        pixels = _numbers(path, table, "rlnImagePixelSize")
    elif "rlnImagePixelSize" in rows or "rlnPixelSize" in rows:
        label = "rlnImagePixelSize" if "rlnImagePixelSize" in rows else "rlnPixelSize"
        values = _numbers(path, rows, label)
        _check_alike(path, "pixel sizes", values, "A", PIXEL_TOLERANCE)
        pixels = np.full(groups, values[0])
    else:
        pixels = np.array([read_header(stack).voxel_size_a[0] for stack in first_stacks])
    if not (pixels > 0).all():
        raise InputError("no pixel size", where=path, found="no rlnImagePixelSize, and none in the header of the stack",
                         remedy="Add rlnImagePixelSize to the optics table.")
    return pixels


def _boxes(path: Path, table: Table, first_stacks: list[str]) -> np.ndarray:
    if "rlnImageSize" in table:
        return _numbers(path, table, "rlnImageSize")
    return np.array([read_header(stack).shape[2] for stack in first_stacks])


def _check_alike(path: Path, what: str, values: np.ndarray, unit: str, tolerance: float) -> None:
    if values.max() - values.min() > tolerance * values.max():
        raise InputError(f"the particles have mixed {what}", where=path,
                         found=", ".join(f"{v:g}" for v in np.unique(values)[:5]) + f" {unit}", expected="one",
                         remedy="Extract or rescale the particles to one box and one pixel size.")


# --------------------------------------------------------------------------------------------- writing

def write_particles(path: Path | str, particles: Particles) -> None:
    """Write `particles` as RELION 3.1 STAR (optics and particles tables); whole or not at all.

    Angles in degrees, origins in angstroms, 1-based subset, class, group and image. Paths of stacks in or below the
    folder of `path` are written relative to it, others in full. Scores without a RELION name become `_swiftres...`
    columns. Raises `InputError` when the folder does not exist.
    """
    path = Path(path)
    text = "\n".join([format_table("optics", _optics_columns(particles)),
                      format_table("particles", _particle_columns(particles, path.parent))])
    with written_atomically(path) as part:
        part.write_text(text, encoding="utf-8", errors="surrogateescape")


def _optics_columns(particles: Particles) -> dict[str, list[str]]:
    groups = particles.optics
    columns = {
        "rlnOpticsGroupName": [g.name for g in groups],
        "rlnOpticsGroup": [str(i + 1) for i in range(len(groups))],
        "rlnVoltage": _fixed(g.voltage_kv for g in groups),
        "rlnSphericalAberration": _fixed(g.spherical_aberration_mm for g in groups),
        "rlnAmplitudeContrast": _fixed(g.amplitude_contrast for g in groups),
        "rlnImagePixelSize": [f"{g.pixel_size_a:.9g}" for g in groups],
        "rlnImageSize": [str(g.box_px) for g in groups],
    }
    if any(g.phase_flipped for g in groups):
        columns["rlnCtfDataArePhaseFlipped"] = [str(int(g.phase_flipped)) for g in groups]
    columns.update(aberration_columns(groups))
    columns.update({label: list(values) for label, values in particles.extra_optics.items()})
    columns.setdefault("rlnImageDimensionality", ["2"] * len(groups))
    return columns


def _particle_columns(particles: Particles, folder: Path) -> dict[str, list[str]]:
    ctf = particles.ctf
    stacks = [_relative_if_below(stack, folder) for stack in particles.stack_paths]
    columns = {
        "rlnImageName": [f"{image + 1:06d}@{stacks[stack]}" for image, stack in
                         zip(particles.slice_index.tolist(), particles.stack_index.tolist())],
        "rlnOpticsGroup": _whole(particles.optics_group + 1),
        "rlnDefocusU": _fixed(ctf.defocus_u_a), "rlnDefocusV": _fixed(ctf.defocus_v_a),
        "rlnDefocusAngle": _fixed(np.rad2deg(ctf.defocus_angle_rad)),
        "rlnPhaseShift": _fixed(np.rad2deg(ctf.phase_shift_rad)), **damping_columns(ctf),
    }
    if particles.poses is not None:
        angles = np.rad2deg(matrix_to_euler(particles.poses.image_to_volume))
        columns.update({label: _fixed(values) for label, values in zip(ANGLES, angles)})
        columns.update({label: _fixed(values) for label, values in zip(ORIGINS_A, particles.poses.shift_a.T)})
    if particles.half is not None:
        columns["rlnRandomSubset"] = _whole(particles.half + 1)
    columns.update(_score_columns(particles.scores))
    columns.update({label: values.tolist() for label, values in particles.extra.items() if label not in columns})
    return columns


def _score_columns(scores: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    columns = {}
    for name in sorted(scores):
        values = scores[name]
        label = SCORES.get(name) or "swiftres" + "".join(word.capitalize() for word in name.split("_"))
        columns[label] = _whole(values + 1) if name == "class_id" else [f"{v:.9g}" for v in np.asarray(values).tolist()]
    return columns


def _relative_if_below(stack: str, folder: Path) -> str:
    full, root = Path(os.path.abspath(stack)), Path(os.path.abspath(folder))
    return str(full.relative_to(root)) if full.is_relative_to(root) else str(full)


def _fixed(values: Iterable[float] | np.ndarray) -> list[str]:
    """Six decimals: far below what any of these numbers is known to. No negative zero."""
    return _texts(values, lambda value: f"{value:.6f}" if abs(value) >= 5e-7 else "0.000000")


def _whole(values: np.ndarray) -> list[str]:
    return _texts(values, lambda value: str(int(value)))


def _texts(values: Iterable[float] | np.ndarray, text: Callable[[float], str]) -> list[str]:
    return [text(value) for value in (values.tolist() if isinstance(values, np.ndarray) else values)]
