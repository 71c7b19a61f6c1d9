"""The global search by a vector index: every particle against the whole gallery, at every shift."""
from __future__ import annotations

from dataclasses import dataclass

import torch

from swiftres_plugin.engine.data.search import Band, Candidates, Gallery, VectorIndex
from swiftres_plugin.engine.data.spectra import Comparison, ParticleBatch
from swiftres_plugin.engine.maths.basins import PER_CANDIDATE, distinct
from swiftres_plugin.engine.maths.fourier import RAMP_BYTES, ramps_back

MATCHES_PER_SHIFT = 16


@dataclass(frozen=True, eq=False, slots=True)
class IndexSearch:
    """References in an index, and the shifts (S, 2) at which particles are compared with them."""

    basis: Comparison
    gallery: Gallery
    index: VectorIndex
    shifts_a: torch.Tensor

    def to(self, device: torch.device) -> IndexSearch:
        gallery = self.gallery.to(device)
        return IndexSearch(self.basis.to(device), gallery, self.index.over(gallery.vectors), self.shifts_a.to(device))

    @property
    def band(self) -> Band:
        return self.basis.band

    @property
    def angular_step_rad(self) -> float:
        return self.gallery.angular_step_rad

    @property
    def description(self) -> str:
        return self.index.description

    @property
    def whole_processor(self) -> bool:
        return True

    @property
    def products(self) -> float:
        return float(self.gallery.vectors.numel() * len(self.shifts_a))

    def orientations(self) -> torch.Tensor:
        return self.gallery.image_to_volume

    def bytes_per_particle(self, count: int) -> int:
        shifts = len(self.shifts_a)
        compared = min(PER_CANDIDATE * count, shifts * MATCHES_PER_SHIFT)  # matches that are told apart, each from each
        return shifts * (len(self.band) * RAMP_BYTES + 8 * self.gallery.vectors.shape[1] + 400) + 10 * compared ** 2

    def search(self, batch: ParticleBatch, noise: torch.Tensor, centre_a: torch.Tensor, count: int) -> Candidates:
        moves = centre_a[:, None] + self.shifts_a[None]
        ramp = ramps_back(batch.band, moves)
        queries = self.basis.of_particles(batch, noise, ramp)
        scores, ids = self.index.search(queries.flatten(0, 1), MATCHES_PER_SHIFT)
        top, order = scores.view(len(moves), -1).sort(dim=1, descending=True, stable=True)
        top, order = top[:, :PER_CANDIDATE * count], order[:, :PER_CANDIDATE * count]
        rotation = self.gallery.image_to_volume[ids.view(len(moves), -1).gather(1, order)]
        shift_a = moves.gather(1, (order // MATCHES_PER_SHIFT)[..., None].expand(-1, -1, 2))
        return distinct(rotation, shift_a, top, self.gallery.angular_step_rad, count)
