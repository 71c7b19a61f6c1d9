"""How far random starts came to the same maps: whether particles stand at the same orientations against them.

Evidence alone does not tell it: maps that mean nothing explain what they were made of about as well as one another. Starts are
independent, so that particles which stand alike in many of them were put there by what they show. Compared in the frame that
the group leaves free, and with the mirror image too, which no projection tells from the map.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from swiftres_plugin.engine.data.particles import Poses
from swiftres_plugin.engine.maths.symmetry import angular_errors, global_rotation

MIRROR = np.diag([1.0, 1.0, -1.0])
FEWEST = 3  # particles of a map: fewer stand alike in some frame whatever they show
ROLLS = 4  # of the particles, whose mean agreement is what chance would give


@dataclass(frozen=True, eq=False, slots=True)
class Standing:
    """Where particles (N,) stand against the maps of a start: the map that each fits best, and its rotation image_to_volume
    (N, 3, 3)."""

    map_number: np.ndarray
    image_to_volume: np.ndarray

    def take(self, rows: np.ndarray) -> Standing:
        """That of the particles at `rows`."""
        return Standing(self.map_number[rows], self.image_to_volume[rows])


def agreement(first: Standing, other: Standing, operators: np.ndarray, within_rad: float) -> float:
    """How far two starts agree beyond chance: 1 where all particles stand alike, 0 where other particles stand as much alike.

    Where all crowd at few orientations any two of them stand alike, and that says nothing (Cohen 1960).
    """
    count = len(first.map_number)
    rolls = [np.roll(np.arange(count), count * turn // (ROLLS + 1)) for turn in range(1, ROLLS + 1)]
    chance = float(np.mean([share_alike(first, other.take(roll), operators, within_rad) for roll in rolls]))
    found = share_alike(first, other, operators, within_rad)
    return max(0.0, found - chance) / (1 - chance) if chance < 1 else 0.0


def share_alike(first: Standing, other: Standing, operators: np.ndarray, within_rad: float) -> float:
    """Share of the particles that stand within an angle of one another in both starts; maps may have changed places."""
    alike = 0
    for number in np.unique(first.map_number):
        members = np.flatnonzero(first.map_number == number)
        same = members[other.map_number[members] == np.bincount(other.map_number[members]).argmax()]
        if len(same) >= FEWEST:
            alike += count_alike(first.image_to_volume[same], other.image_to_volume[same], operators, within_rad)
    return alike / len(first.map_number)


def count_alike(first: np.ndarray, other: np.ndarray, operators: np.ndarray, within_rad: float) -> int:
    """How many rotations (N, 3, 3) are the same within an angle, but for the frame, the group and the hand."""
    found = Poses(first, np.zeros((len(first), 2)))
    counts = []
    for hand in (np.eye(3), MIRROR):
        turned = hand @ other @ hand
        turned = global_rotation(first, turned, operators) @ turned
        angles, _ = angular_errors(found, Poses(turned, found.shift_a), operators)
        counts.append(int((angles < within_rad).sum()))
    return max(counts)
