"""Spectra as short vectors whose inner product is a log-likelihood.

A reference R is compared with a query q = C X / noise through

    log p = 2 Re<q, R> - sum over shells of c(s) P_R(s)

where c is the shell sum of C^2 / noise and P_R the mean power of R on the shell. Stacking [R ; P_R] against [2 q ; -c]
makes it one inner product, exact for a CTF without astigmatism; R and q are then projected on principal components.
Both parts are scaled so that queries are about as large in every place: an index that rounds references then rounds the
score evenly.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch

from swiftres_plugin.engine.data.search import Band
from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.maths.adding import add_at


@dataclass(frozen=True, eq=False, slots=True)
class Basis:
    """How spectra become vectors: samples are scaled by `weight` (L,) and projected on `components` (2L, D).

    None for `components` keeps every sample. power_weight: (S,) scale of the references' shell powers.
    """

    band: Band
    weight: torch.Tensor
    components: torch.Tensor | None
    explained: float
    power_weight: torch.Tensor

    def to(self, device: torch.device) -> Basis:
        components = None if self.components is None else self.components.to(device)
        return Basis(self.band.to(device), self.weight.to(device), components, self.explained, self.power_weight.to(device))

    def of_references(self, slices: torch.Tensor) -> torch.Tensor:
        """(B, D + S) vectors of references (B, L) complex."""
        power = shell_sums_of(slices.real ** 2 + slices.imag ** 2, self.band) / shell_sizes(self.band, slices.device)
        return torch.cat([self.projected(as_real(slices * self.weight)), power * self.power_weight], dim=1)

    def of_queries(self, matched: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
        """(..., D + S) vectors of queries: matched (..., L) = C X / noise, strength (..., L) = C^2 / noise."""
        power = -shell_sums_of(strength, self.band) / self.power_weight
        vector = self.projected(as_real(2 * matched / self.weight))
        return torch.cat([vector, power.expand(*vector.shape[:-1], -1)], dim=-1)

    def of_particles(self, batch: ParticleBatch, noise: torch.Tensor, ramp: torch.Tensor) -> torch.Tensor:
        """(B, M, D + S) queries of particles moved by `ramp` (B, M, L); noise (B, L)."""
        matched = batch.ctf * batch.images / noise
        return self.of_queries(matched[:, None] * ramp, (batch.ctf ** 2 / noise)[:, None])

    def projected(self, vectors: torch.Tensor) -> torch.Tensor:
        """(..., D) principal components of (..., 2L)."""
        return vectors if self.components is None else vectors @ self.components


def likelihood_weights(strength: torch.Tensor, band: Band) -> tuple[torch.Tensor, torch.Tensor]:
    """`weight` and `power_weight` of a `Basis` for particles whose C^2 / noise is (L,) in the mean."""
    weight = strength.clamp(min=1e-3 * float(strength.max())).sqrt()
    return weight, 0.5 * shell_sums_of(weight ** 2, band)


def as_real(values: torch.Tensor) -> torch.Tensor:
    """Complex (..., L) as interleaved real numbers (..., 2L)."""
    return torch.view_as_real(values).flatten(-2)


def shell_sums_of(values: torch.Tensor, band: Band) -> torch.Tensor:
    """Sum of (..., L) over each shell 1..last: (..., S)."""
    sums = torch.zeros((*values.shape[:-1], band.last_shell), dtype=values.dtype, device=values.device)
    return add_at(sums, -1, band.shell.to(values.device) - 1, values)


def shell_sizes(band: Band, device: torch.device) -> torch.Tensor:
    return torch.bincount(band.shell - 1, minlength=band.last_shell).to(device, torch.float32)
