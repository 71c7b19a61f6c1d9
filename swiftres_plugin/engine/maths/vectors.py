"""Spectra as short vectors whose inner product is a log-likelihood.

A reference R is compared with a query q = C X / noise through

    log p = 2 Re<q, R> - sum over shells of c(s) P_R(s)

where c is the shell sum of C^2 / noise and P_R the mean power of R on the shell. Stacking [R ; P_R] against [2 q ; -c]
makes it one inner product, exact for a CTF without astigmatism; R and q are then projected on principal components.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch

from swiftres_plugin.engine.data.search import Band


@dataclass(frozen=True, eq=False, slots=True)
class Basis:
    """How spectra become vectors: samples are scaled by `weight` (L,) and projected on `components` (2L, D)."""

    band: Band
    weight: torch.Tensor
    components: torch.Tensor
    explained: float

    def to(self, device: torch.device) -> Basis:
        return Basis(self.band.to(device), self.weight.to(device), self.components.to(device), self.explained)

    def of_references(self, slices: torch.Tensor) -> torch.Tensor:
        """(B, D + S) vectors of references (B, L) complex."""
        power = shell_sums_of(slices.real ** 2 + slices.imag ** 2, self.band) / shell_sizes(self.band, slices.device)
        return torch.cat([as_real(slices * self.weight) @ self.components, power], dim=1)

    def of_queries(self, matched: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
        """(..., D + S) vectors of queries: matched (..., L) = C X / noise, strength (..., L) = C^2 / noise."""
        vector = as_real(2 * matched / self.weight) @ self.components
        return torch.cat([vector, -shell_sums_of(strength, self.band)], dim=-1)


def as_real(values: torch.Tensor) -> torch.Tensor:
    """Complex (..., L) as interleaved real numbers (..., 2L)."""
    return torch.view_as_real(values).flatten(-2)


def shell_sums_of(values: torch.Tensor, band: Band) -> torch.Tensor:
    """Sum of (..., L) over each shell 1..last: (..., S)."""
    sums = torch.zeros((*values.shape[:-1], band.last_shell), dtype=values.dtype, device=values.device)
    return sums.index_add_(-1, band.shell.to(values.device) - 1, values)


def shell_sizes(band: Band, device: torch.device) -> torch.Tensor:
    return torch.bincount(band.shell - 1, minlength=band.last_shell).to(device, torch.float32)
