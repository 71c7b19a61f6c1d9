"""Particles as the stages see them: their transforms, resident for the whole refinement."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from swiftres_plugin.engine.data.particles import Particles
from swiftres_plugin.engine.data.search import Band


@dataclass(frozen=True, eq=False, slots=True)
class Spectra:
    """Transforms of N particles on a band, in half precision: values (N, L, 2), in memory or memory-mapped."""

    values: torch.Tensor
    band: Band
    particles: Particles

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, eq=False, slots=True)
class ParticleBatch:
    """B particles on one device, cut to a band.

    rows: (B,) their place in the `Spectra`; images: (B, L) complex64; ctf: (B, L) float32; optics_group: (B,) int64.
    """

    rows: np.ndarray
    images: torch.Tensor
    ctf: torch.Tensor
    optics_group: torch.Tensor
    band: Band

    def up_to(self, shell: int) -> ParticleBatch:
        """The same particles on a shorter band."""
        band = self.band.up_to(shell)
        return ParticleBatch(self.rows, self.images[:, :len(band)], self.ctf[:, :len(band)], self.optics_group, band)

    def take(self, index: torch.Tensor) -> ParticleBatch:
        """The particles at positions `index` of the batch (repeats allowed)."""
        rows = self.rows[index.cpu().numpy()]
        return ParticleBatch(rows, self.images[index], self.ctf[index], self.optics_group[index], self.band)


class Comparison(Protocol):
    """How images and references become vectors whose inner product says how alike they are."""

    @property
    def band(self) -> Band:
        """The coefficients that are compared."""

    def to(self, device: torch.device) -> Comparison:
        """The same on `device`."""

    def of_references(self, slices: torch.Tensor) -> torch.Tensor:
        """(B, D) vectors of references (B, L)."""

    def of_particles(self, batch: ParticleBatch, noise: torch.Tensor, ramp: torch.Tensor) -> torch.Tensor:
        """(B, M, D) vectors of particles moved by `ramp` (B, M, L), with noise power (B, L)."""
