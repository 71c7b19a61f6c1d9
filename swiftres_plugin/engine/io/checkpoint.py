"""Refinement states as folders, which are at once checkpoint and result: written aside, then renamed."""
from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from ... import layout
from ...errors import InputError, StateError
from ..data.maps import HalfMaps, Map
from ..data.particles import Particles
from ..data.search import Assignment
from ..data.state import IterationRecord, RefinementState
from .mrc import read_map, write_map
from .star import write_particles
from .tables import read_fsc, write_fsc

ARRAYS = "arrays.npz"


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
        _write_arrays(part / ARRAYS, state)
        write_particles(part / layout.PARTICLES, particles)
        (part / layout.STATE).write_text(json.dumps(_numbers(state), indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _write_maps(folder: Path, state: RefinementState, pixel_size_a: float) -> None:
    if state.halves is None or state.combined is None or state.fsc is None or state.mask is None:
        raise ValueError("only a state after an iteration can be saved")
    maps = {layout.map_name(): state.combined, layout.half_name(1): state.halves.first.voxels,
            layout.half_name(2): state.halves.second.voxels, layout.mask_name(): state.mask,
            _reference_name(1): state.references[0].cpu().numpy(), _reference_name(2): state.references[1].cpu().numpy()}
    for name, voxels in maps.items():
        write_map(folder / name, Map(voxels, pixel_size_a))
    write_fsc(folder / layout.fsc_name(), state.fsc)


def _reference_name(half_number: int) -> str:
    return f"class1_reference{half_number}.mrc"


def _write_arrays(path: Path, state: RefinementState) -> None:
    assignment = state.assignment
    if assignment is None:
        raise ValueError("only a state after an iteration can be saved")
    arrays = {name: getattr(assignment, name) for name in Assignment.__slots__}
    with path.open("wb") as file:
        np.savez(file, noise=state.noise, half=state.half, **arrays)


def _numbers(state: RefinementState) -> dict:
    history = [dataclasses.asdict(record) for record in state.history]
    return {"number": state.number, "last_shell": state.last_shell, "at_rest": state.at_rest, "history": history}


def load_state(folder: Path) -> RefinementState:
    """The state saved in `folder`. Raises `StateError` when the folder is damaged."""
    try:
        numbers = json.loads((folder / layout.STATE).read_text())
        with np.load(folder / ARRAYS) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        maps = {name: read_map(folder / name) for name in (
            layout.map_name(), layout.half_name(1), layout.half_name(2), layout.mask_name(), _reference_name(1),
            _reference_name(2))}
        history = tuple(IterationRecord(**record) for record in numbers["history"])
        fsc = read_fsc(folder / layout.fsc_name())
        if len(fsc.frequency) != maps[layout.map_name()].box_px // 2 + 1:
            raise ValueError(f"{layout.fsc_name()} is not whole")
        assignment = Assignment(*(found[name] for name in Assignment.__slots__))
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, InputError) as error:
        raise StateError(f"{folder}: this checkpoint is damaged ({error}). "
                         "Delete the folder to go on from the one before.") from error
    references = tuple(torch.from_numpy(maps[_reference_name(h)].voxels.copy()) for h in (1, 2))
    return RefinementState(
        numbers["number"], (references[0], references[1]), found["noise"], found["half"], numbers["last_shell"], assignment,
        HalfMaps(maps[layout.half_name(1)], maps[layout.half_name(2)]), maps[layout.map_name()].voxels,
        maps[layout.mask_name()].voxels, fsc, history, numbers["at_rest"])


def slim(folder: Path) -> None:
    """Delete from a folder what only a resume needs, once a later iteration is safe."""
    for name in (ARRAYS, _reference_name(1), _reference_name(2), layout.half_name(1), layout.half_name(2), layout.mask_name()):
        (folder / name).unlink(missing_ok=True)
