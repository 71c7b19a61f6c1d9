"""Classes of particles that show one view."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, eq=False, slots=True)
class ClassSearch:
    """Where the search for K classes stands.

    numerator, weight: (K, R, M) harmonics along rings of the sums of the averages, faded; averages: (K, L) on those rings;
    noise: (groups, S); share: (K,) of the particles; evidence: mean log of the particles' likelihoods at each step so far,
    relative to empty images.
    """

    numerator: torch.Tensor
    weight: torch.Tensor
    averages: torch.Tensor
    noise: np.ndarray
    share: np.ndarray
    evidence: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Placements:
    """Where N particles were put: class_id (N,) from 0; psi_rad (N,); shift_a (N, 2); log_likelihood (N,) relative to an
    empty image; max_probability (N,); deviation (N, 3) of the rotation (rad) and of the shift (A) by the posterior."""

    class_id: np.ndarray
    psi_rad: np.ndarray
    shift_a: np.ndarray
    log_likelihood: np.ndarray
    max_probability: np.ndarray
    deviation: np.ndarray


@dataclass(frozen=True, eq=False, slots=True)
class ClassAverages:
    """K averages, largest class first.

    images: (K, n, n) float32; pixel_size_a; size: (K,) particles; resolution_a: (K,) where the halves' correlation falls
    below 0.143, infinite where it never stands above; correlation: (K, S) of the halves' averages on each shell;
    rotation_error_rad, shift_error_a: (K,) expected of a particle, infinite for an empty class.
    """

    images: np.ndarray
    pixel_size_a: float
    size: np.ndarray
    resolution_a: np.ndarray
    correlation: np.ndarray
    rotation_error_rad: np.ndarray
    shift_error_a: np.ndarray

    def __len__(self) -> int:
        return len(self.images)
