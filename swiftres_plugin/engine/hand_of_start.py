"""The hand of a result is that of its starting map, wherever the starting map shows one.

A map too coarse to tell orientations (ferritin at 48 A) leads to one hand or the other by chance. Yet it holds a trace of its
own hand, and once the structure is known in detail that trace tells which of the two was begun with.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from swiftres_plugin.engine.data.maps import HalfMaps, Map
from swiftres_plugin.engine.data.state import ClassState, RefinementState
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.hands import inverted, inverted_planes, with_inverted
from swiftres_plugin.engine.maths.fourier import filter_shells, low_pass_gain
from swiftres_plugin.engine.maths.padded import Empty, slabs

LEAST_GAIN = 2e-6  # of the overlap with the starting map, in both halves: rounding makes ten times less


def in_hand_of_start(engine: Engine, state: RefinementState, starts: Sequence[Map]) -> RefinementState:
    """The state with those classes inverted that overlap farther with their starting map so: both of their halves do.

    Poses and masks that were given stand in the frame of the starting map, and keep the result there.
    """
    if engine.user_mask is not None or engine.settings.schedule.alignment == "local" or state.assignment is None:
        return state
    chosen = [number for number, one in enumerate(state.classes)
              if one.halves is not None and begun_inverted(engine, starts[min(number, len(starts) - 1)], one.halves)]
    if not chosen:
        return state
    engine.reporter.message("The result had come to the other hand than its starting map, which hardly shows one: it is "
                            "inverted, poses and maps.")
    empty = engine.storage.makes
    classes = tuple(inverted_class(one, empty) if number in chosen else one for number, one in enumerate(state.classes))
    return replace(state, classes=classes,
                   assignment=with_inverted(state.assignment, np.isin(state.assignment.class_id, chosen)))


def begun_inverted(engine: Engine, start: Map, halves: HalfMaps) -> bool:
    """Whether the starting map, as coarse as it was used, says that these halves have the other hand."""
    gain = low_pass_gain(start.box_px, start.pixel_size_a, engine.settings.schedule.initial_resolution)
    coarse = filter_shells(torch.from_numpy(start.voxels), gain, engine.storage.makes)
    return all(gain_by_inversion(coarse, torch.from_numpy(half.voxels)) > LEAST_GAIN for half in (halves.first, halves.second))


def gain_by_inversion(start: torch.Tensor, voxels: torch.Tensor) -> float:
    """By what part of itself the overlap (the sum of products) of a cube with a start grows when the cube is inverted."""
    other, here, there = inverted_planes(voxels), 0.0, 0.0
    for slab in slabs(len(start), start[0].nbytes):
        here += float((start[slab] * voxels[slab]).sum(dtype=torch.float64))
        there += float((start[slab] * other(slab)).sum(dtype=torch.float64))
    return (there - here) / max(abs(here) + abs(there), 1e-30)


def inverted_class(one: ClassState, empty: Empty | None) -> ClassState:
    """All maps of a class, inverted."""
    def other(voxels: np.ndarray) -> np.ndarray:
        found: np.ndarray = inverted(torch.from_numpy(voxels), empty).numpy()
        return found

    first, second = (inverted(reference, empty) for reference in one.references)
    halves = one.halves and HalfMaps(*(replace(half, voxels=other(half.voxels))
                                       for half in (one.halves.first, one.halves.second)))
    return replace(one, references=(first, second), halves=halves,
                   combined=None if one.combined is None else other(one.combined),
                   mask=None if one.mask is None else other(one.mask))
