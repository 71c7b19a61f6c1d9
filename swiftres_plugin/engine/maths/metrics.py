"""The metrics of projection matching by distance, as inner products: what a likelihood is compared with.

    euclidean, weighted    2 <w q, w R> - |w R|^2, which is |w q|^2 - |w (q - R)|^2
    cosine                 <q, R> / (|q| |R|)
    pearson                the same of vectors without their mean

None knows of noise, and references have no contrast transfer: images are taken as they are, or Wiener-corrected.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch

from swiftres_plugin.engine.data.search import Band
from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.maths.vectors import as_real

WIENER_CONSTANT = 0.1  # of the mean energy of the contrast transfer
DISTANCES = ("euclidean", "weighted")


@dataclass(frozen=True, eq=False, slots=True)
class MetricBasis:
    """How spectra become vectors for `metric`: scaled by `weight` (L,) and projected on `components` (2L, D), None for all.

    norm_weight: scale of the column that holds |w R|^2, so that queries are about as large there as elsewhere.
    """

    band: Band
    metric: str
    wiener: bool
    weight: torch.Tensor
    components: torch.Tensor | None
    norm_weight: float = 1.0

    def to(self, device: torch.device) -> MetricBasis:
        components = None if self.components is None else self.components.to(device)
        return MetricBasis(self.band.to(device), self.metric, self.wiener, self.weight.to(device), components,
                           self.norm_weight)

    def of_references(self, slices: torch.Tensor) -> torch.Tensor:
        """(B, D) vectors of references (B, L) complex; one column more for distances."""
        vectors = self._standard(as_real(slices * self.weight))
        if self.metric not in DISTANCES:
            return self._projected(vectors)
        square = (vectors ** 2).sum(-1, keepdim=True)
        return torch.cat([self._projected(vectors), self.norm_weight * square], dim=-1)

    def of_particles(self, batch: ParticleBatch, noise: torch.Tensor, ramp: torch.Tensor) -> torch.Tensor:
        """(B, M, D) queries of particles moved by `ramp` (B, M, L); the noise does not matter."""
        images = wiener_corrected(batch.images, batch.ctf) if self.wiener else batch.images
        vectors = self._projected(self._standard(as_real((images * self.weight)[:, None] * ramp)))
        if self.metric not in DISTANCES:
            return vectors
        return torch.cat([2 * vectors, torch.full_like(vectors[..., :1], -1 / self.norm_weight)], dim=-1)

    def _standard(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors without their mean, and of length one, where the metric says so."""
        if self.metric == "pearson":
            vectors = vectors - vectors.mean(-1, keepdim=True)
        return vectors if self.metric in DISTANCES else torch.nn.functional.normalize(vectors, dim=-1)

    def _projected(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors if self.components is None else vectors @ self.components


def wiener_corrected(images: torch.Tensor, ctf: torch.Tensor) -> torch.Tensor:
    """C X / (C^2 + k) of images X (B, L), with k a tenth of the mean C^2 of each."""
    energy = ctf ** 2
    return ctf * images / (energy + WIENER_CONSTANT * energy.mean(-1, keepdim=True))


def metric_weights(metric: str, strength: torch.Tensor) -> torch.Tensor:
    """(L,) one, or for 'weighted' the root of the particles' mean C^2 / noise (L,) over its average."""
    return (strength / strength.mean()).sqrt() if metric == "weighted" else torch.ones_like(strength)
