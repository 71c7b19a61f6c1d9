"""Atomic models, as far as an image of them needs."""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, eq=False, slots=True)
class Atoms:
    """N atoms: position_a (N, 3) x, y, z; element (N,) symbols ("C"); occupancy (N,).

    For writing also what they belong to: name (N,) ("CA"), residue (N,) three-letter names, residue_number (N,) and
    chain (N,).
    """

    position_a: np.ndarray
    element: np.ndarray
    occupancy: np.ndarray
    name: np.ndarray
    residue: np.ndarray
    residue_number: np.ndarray
    chain: np.ndarray

    def __len__(self) -> int:
        return len(self.element)

    def centred(self) -> Atoms:
        """The same atoms with their mean position at the origin."""
        return replace(self, position_a=self.position_a - self.position_a.mean(axis=0))

    @property
    def radius_a(self) -> float:
        """Distance of the farthest atom from the origin."""
        return float(np.linalg.norm(self.position_a, axis=1).max())
