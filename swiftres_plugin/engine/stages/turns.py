"""Soft assignment in the plane: every particle against every class average at every in-plane rotation and shift.

The log-likelihood of stages/local.py, log p = 2 Re<q, A> - sum (C^2 / N) |A|^2 with q = C X / N, summed over rings of Fourier
space: for each shift one product of harmonics gives all classes at all rotations. What the shares of the posterior add to
the sums of the averages are two more such products (the polar search of PRIME and RELION's expectation, without loops).
"""
from __future__ import annotations

from dataclasses import dataclass

import torch

from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.maths.fourier import phase_ramp
from swiftres_plugin.engine.maths.polar import cell_area, harmonics, ring_angles


@dataclass(frozen=True, eq=False, slots=True)
class Templates:
    """K class averages to compare with, on a band of rings.

    averages: (K, L) complex; log_prior: (K,); shifts_a: (S, 2); shift_log_prior: (S,).
    """

    averages: torch.Tensor
    log_prior: torch.Tensor
    shifts_a: torch.Tensor
    shift_log_prior: torch.Tensor

    def __len__(self) -> int:
        return len(self.averages)


@dataclass(frozen=True, eq=False, slots=True)
class TurnSums:
    """What B particles add to K averages, and what was found for each particle.

    numerator, weight: (K, R, M) harmonics of the sums of share * C X / N, turned and centred, and of share * C^2 / N;
    occupancy: (K,) of the shares; power: (L,) of |X|^2 / N; evidence: (B,) log of the mean likelihood by the priors,
    relative to an empty image.
    """

    numerator: torch.Tensor
    weight: torch.Tensor
    occupancy: torch.Tensor
    power: torch.Tensor
    evidence: torch.Tensor

    def __add__(self, other: TurnSums) -> TurnSums:
        return TurnSums(self.numerator + other.numerator, self.weight + other.weight, self.occupancy + other.occupancy,
                        self.power + other.power, torch.cat([self.evidence, other.evidence]))


@dataclass(frozen=True, eq=False, slots=True)
class Placings:
    """The likeliest place of each particle in each of its likeliest classes, best first.

    class_id, psi_rad, log_posterior: (B, k); shift_a: (B, k, 2).
    """

    class_id: torch.Tensor
    psi_rad: torch.Tensor
    shift_a: torch.Tensor
    log_posterior: torch.Tensor

    def take(self, rows: torch.Tensor) -> Placings:
        """Those of the particles at `rows`."""
        return Placings(*(getattr(self, name)[rows] for name in Placings.__slots__))

    def best(self) -> Placings:
        """The likeliest alone: (B, 1)."""
        column = self.log_posterior.argmax(1, keepdim=True)
        rows = torch.arange(len(column), device=column.device)[:, None]
        return Placings(*(getattr(self, name)[rows, column] for name in Placings.__slots__))

    @staticmethod
    def joined(parts: list[Placings]) -> Placings:
        return Placings(*(torch.cat([getattr(part, name) for part in parts]) for name in Placings.__slots__))


def soft_turns(batch: ParticleBatch, noise: torch.Tensor, templates: Templates) -> TurnSums:
    """Posterior of each particle over classes, rotations and shifts, and the sums it leads to; noise (B, L)."""
    moved, strength = _queries(batch, noise, templates)
    share = _scores(moved, strength, templates, batch)
    highest = share.amax(dim=(0, 2, 3))
    share.sub_(highest[:, None, None]).exp_()
    total = share.sum(dim=(0, 2, 3))
    share /= total[:, None, None]
    placed = share.sum(2)
    turns = torch.fft.rfft(share, dim=0).flatten(1, 2)
    numerator = turns.transpose(1, 2) @ moved.flatten(1, 2)
    weight = torch.fft.rfft(placed, dim=0).transpose(1, 2) @ strength
    evidence = highest + total.log() - torch.log(torch.tensor(float(len(share))))
    return TurnSums(numerator.permute(1, 2, 0).contiguous(), weight.permute(1, 2, 0).contiguous(), placed.sum((0, 1)),
                    (batch.images.abs() ** 2 / noise).sum(0), evidence)


def best_turns(batch: ParticleBatch, noise: torch.Tensor, templates: Templates, count: int) -> Placings:
    """The best rotation and shift of each particle in each of its `count` best classes."""
    moved, strength = _queries(batch, noise, templates)
    score = _scores(moved, strength, templates, batch)
    angles, particles, shifts, classes = score.shape
    flat = score.permute(1, 3, 0, 2).flatten(2)
    highest, place = flat.max(2)
    best, class_id = highest.topk(min(count, classes), dim=1)
    place = place.gather(1, class_id)
    psi = (place // shifts).float() * (2 * torch.pi / angles)
    return Placings(class_id, psi, templates.shifts_a[place % shifts], best)


def _queries(batch: ParticleBatch, noise: torch.Tensor, templates: Templates) -> tuple[torch.Tensor, torch.Tensor]:
    """Harmonics, orders first: of C X / N at every shift (M, B, S, R), and of C^2 / N (M, B, R)."""
    wave = batch.band.wave_px / batch.band.box_a
    matched = (batch.ctf * batch.images / noise)[:, None] * phase_ramp(wave, -templates.shifts_a)
    moved = harmonics(matched, batch.band).permute(3, 0, 1, 2).contiguous()
    return moved, harmonics(batch.ctf ** 2 / noise, batch.band).permute(2, 0, 1).contiguous()


def _scores(moved: torch.Tensor, strength: torch.Tensor, templates: Templates, batch: ParticleBatch) -> torch.Tensor:
    """(P, B, S, K) log posterior, but for a constant of each particle's, of every rotation, shift and class."""
    band, angles = batch.band, ring_angles(batch.band)
    area = cell_area(band)
    averages, power = (harmonics(values * area, band).permute(2, 1, 0)
                       for values in (templates.averages, templates.averages.abs() ** 2))
    cross = moved.flatten(1, 2).conj() @ averages
    score = torch.fft.irfft(cross, n=angles, dim=0).unflatten(1, moved.shape[1:3])
    loss = torch.fft.irfft(strength.conj() @ power, n=angles, dim=0) / 2
    score -= (loss - templates.log_prior)[:, :, None]
    score += templates.shift_log_prior[:, None]
    return score

