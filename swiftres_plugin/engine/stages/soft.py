"""Soft assignment: every particle against every reference at every shift, each with its share of the posterior.

The log-likelihood is that of stages/local.py, log p = 2 Re<q, V> - sum (C^2 / N) |V|^2 with q = C X / N, written as two
matrix products; the expected sums of a reconstruction are two more. Exact for any CTF, at the price of the whole grid:
for low resolution, where grids are small and no single pose can be trusted.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch

from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.maths.fourier import phase_ramp
from swiftres_plugin.engine.maths.vectors import as_real


@dataclass(frozen=True, eq=False, slots=True)
class References:
    """G pictures that particles are compared with.

    slices: (G, L) complex; log_prior: (G,); shifts_a: (S, 2); shift_log_prior: (S,).
    """

    slices: torch.Tensor
    log_prior: torch.Tensor
    shifts_a: torch.Tensor
    shift_log_prior: torch.Tensor

    def __len__(self) -> int:
        return len(self.slices)


@dataclass(frozen=True, eq=False, slots=True)
class SoftSums:
    """What B particles add to each reference, and what was found for each particle.

    numerator: (G, L) complex, sums of share * C X / N, centred; weight: (G, L), of share * C^2 / N; occupancy: (G,), of the
    shares themselves; power: (L,), of |X|^2 / N.
    evidence: (B,) log of the mean likelihood over references and shifts by their priors, relative to an empty image;
    reference, shift: (B,) the likeliest ones; share: (B,) their part of the posterior.
    """

    numerator: torch.Tensor
    weight: torch.Tensor
    occupancy: torch.Tensor
    power: torch.Tensor
    evidence: torch.Tensor
    reference: torch.Tensor
    shift: torch.Tensor
    share: torch.Tensor

    def __add__(self, other: SoftSums) -> SoftSums:
        found = (torch.cat([getattr(self, name), getattr(other, name)])
                 for name in ("evidence", "reference", "shift", "share"))
        return SoftSums(self.numerator + other.numerator, self.weight + other.weight,
                        self.occupancy + other.occupancy, self.power + other.power, *found)

    def unexplained(self, references: References) -> torch.Tensor:
        """(L,) expected power of what the references leave of the particles, in units of their noise, mean of all."""
        slices = references.slices
        explained = 2 * (slices.conj() * self.numerator).real - (slices.abs() ** 2) * self.weight
        return (self.power - explained.sum(0)) / len(self.evidence)


def soft_sums(batch: ParticleBatch, noise: torch.Tensor, references: References) -> SoftSums:
    """Posterior of each particle of the batch over references and shifts, and the sums it leads to; noise (B, L)."""
    wave = batch.band.wave_px.to(torch.float32) / batch.band.box_a
    strength = batch.ctf ** 2 / noise
    matched = (batch.ctf * batch.images / noise)[:, None] * phase_ramp(wave, -references.shifts_a)
    queries = as_real(matched).flatten(0, 1)
    score = (2 * queries @ as_real(references.slices).T).view(*matched.shape[:2], len(references))
    score += (references.log_prior - strength @ (references.slices.abs() ** 2).T)[:, None]
    score += references.shift_log_prior[:, None]
    flat = score.view(len(score), -1)
    best = flat.argmax(1)
    highest = flat.gather(1, best[:, None])
    share = flat.sub_(highest).exp_()
    total = share.sum(1, keepdim=True)
    share /= total
    share = share.view(score.shape)
    numerator = share.flatten(0, 1).T @ queries
    placed = share.sum(1)
    return SoftSums(
        torch.view_as_complex(numerator.view(len(references), -1, 2)), placed.T @ strength, placed.sum(0),
        (batch.images.abs() ** 2 / noise).sum(0), (highest + total.log())[:, 0], best % len(references),
        best // len(references), 1 / total[:, 0])
