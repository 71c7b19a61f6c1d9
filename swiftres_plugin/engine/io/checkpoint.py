"""Refinement states as folders, which are at once checkpoint and result: written aside, then renamed."""
from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from ... import layout
from ...errors import InputError, StateError
from ..data.maps import HalfMaps, Map
from ..data.particles import Particles
from ..data.search import Assignment
from ..data.state import ClassState, IterationRecord, RefinementState
from ..maths.padded import Empty
from .mrc import read_map, write_map
from .star import write_particles
from .tables import read_fsc, write_fsc

MAY_LACK = ("trust", "shares", "settled")  # arrays of a state that it has only after some iterations


def save_state(run: Path, state: RefinementState, particles: Particles) -> Path:
    """Write `state` to its folder in `run` and return it. `particles` are those of the state, with its poses.

    An error (a full disk) leaves the earlier folders as they were.
    """
    folder = run / layout.iteration_name(state.number)
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        _write_maps(part, state, particles.pixel_size_a)
        _write_arrays(part / layout.ARRAYS, state)
        write_particles(part / layout.PARTICLES, particles)
        (part / layout.STATE).write_text(json.dumps(_numbers(state), indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _write_maps(folder: Path, state: RefinementState, pixel_size_a: float) -> None:
    for number, one in enumerate(state.classes, 1):
        if one.halves is None or one.combined is None or one.fsc is None or one.mask is None:
            raise ValueError("only a state after an iteration can be saved")
        voxels = (one.combined, one.halves.first.voxels, one.halves.second.voxels, one.mask,
                  *(reference.cpu().numpy() for reference in one.references))
        for name, values in zip(_map_names(number), voxels):
            write_map(folder / name, Map(values, pixel_size_a))
        write_fsc(folder / layout.fsc_name(number), one.fsc)


def _map_names(number: int) -> tuple[str, ...]:
    """Map, two halves, mask and two references of class `number` (from 1)."""
    return (layout.map_name(number), layout.half_name(1, number), layout.half_name(2, number), layout.mask_name(number),
            f"class{number}_reference1.mrc", f"class{number}_reference2.mrc")


def _write_arrays(path: Path, state: RefinementState) -> None:
    assignment = state.assignment
    if assignment is None:
        raise ValueError("only a state after an iteration can be saved")
    arrays = {name: getattr(assignment, name) for name in Assignment.__slots__}
    arrays |= {name: getattr(state, name) for name in MAY_LACK if getattr(state, name) is not None}
    with path.open("wb") as file:
        np.savez(file, noise=state.noise, half=state.half, **arrays)


def _numbers(state: RefinementState) -> dict:
    history = [dataclasses.asdict(record) for record in state.history]
    classes = [{"last_shell": one.last_shell, "resolution_a": one.resolution_a} for one in state.classes]
    return {"number": state.number, "classes": classes, "at_rest": state.at_rest, "history": history,
            "own_support": state.own_support}


def load_state(folder: Path, empty: Empty | None = None) -> RefinementState:
    """The state saved in `folder`; empty: makes its maps. Raises `StateError` when the folder is damaged."""
    try:
        numbers = json.loads((folder / layout.STATE).read_text())
        with np.load(folder / layout.ARRAYS) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        classes = tuple(_load_class(folder, number, empty, **values) for number, values in enumerate(numbers["classes"], 1))
        history = tuple(_record(values) for values in numbers["history"])
        assignment = Assignment(*(found[name] for name in Assignment.__slots__))
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, InputError) as error:
        raise StateError(f"{folder}: this checkpoint is damaged ({error}). "
                         "Delete the folder to go on from the one before.") from error
    return RefinementState(
        numbers["number"], classes, found["noise"], found["half"], assignment, history, numbers["at_rest"],
        numbers["own_support"], **{name: found.get(name) for name in MAY_LACK})


def _load_class(folder: Path, number: int, empty: Empty | None, last_shell: int, resolution_a: float) -> ClassState:
    combined, first, second, mask, *references = (read_map(folder / name, empty=empty) for name in _map_names(number))
    fsc = read_fsc(folder / layout.fsc_name(number))
    if len(fsc.frequency) != combined.box_px // 2 + 1:
        raise ValueError(f"{layout.fsc_name(number)} is not whole")
    one, two = (torch.from_numpy(reference.voxels) for reference in references)
    return ClassState((one, two), last_shell, resolution_a, HalfMaps(first, second), combined.voxels, mask.voxels, fsc)


def _record(values: dict[str, Any]) -> IterationRecord:
    """JSON knows lists and no tuples."""
    lists: dict[str, Any] = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return IterationRecord(**{**values, **lists})


def slim(folder: Path) -> None:
    """Delete from a folder what only a resume needs, once a later iteration is safe."""
    (folder / layout.ARRAYS).unlink(missing_ok=True)
    number = 1
    while (folder / layout.map_name(number)).exists():
        for name in _map_names(number)[1:]:
            (folder / name).unlink(missing_ok=True)
        number += 1
