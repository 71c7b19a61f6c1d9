"""Continuous refinement of particles in the plane: rotation and shift against a class average, by Levenberg-Marquardt.

Averages turn exactly, through their harmonics along rings of Fourier space (maths/polar.py), and so does the derivative.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch

from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.maths.fourier import phase_ramp
from swiftres_plugin.engine.maths.polar import cell_area, rings_of, turned

FIRST_DAMPING = 1e-2


@dataclass(frozen=True, eq=False, slots=True)
class Trial:
    """T places that particles of a batch are tried at: row of the batch and class (T,), psi_rad (T,), shift_a (T, 2)."""

    row: torch.Tensor
    class_id: torch.Tensor
    psi_rad: torch.Tensor
    shift_a: torch.Tensor


@dataclass(frozen=True, eq=False, slots=True)
class Fit:
    """Log-likelihood (T,) of places (relative to an empty image), its gradient (T, 3) over rotation (rad), x and y (A), and
    the information (T, 3, 3), its negative second derivative without the residual's part."""

    psi_rad: torch.Tensor
    shift_a: torch.Tensor
    score: torch.Tensor
    gradient: torch.Tensor
    information: torch.Tensor


def place(batch: ParticleBatch, noise: torch.Tensor, series: torch.Tensor, trial: Trial, steps: int, bound_rad: float,
          bound_a: float) -> Fit:
    """Refine trials against averages given as harmonics (K, R, M); no step is longer than the bounds; noise (B, L)."""
    fit = evaluate(batch, noise, series, trial, trial.psi_rad, trial.shift_a)
    damping = torch.full_like(fit.score, FIRST_DAMPING)
    for _ in range(steps):
        turn, move = _step(fit, damping, bound_rad, bound_a)
        tried = evaluate(batch, noise, series, trial, fit.psi_rad + turn, fit.shift_a + move)
        better = tried.score > fit.score
        damping = torch.where(better, damping / 4, damping * 8)
        fit = _chosen(better, tried, fit)
    return fit


def evaluate(batch: ParticleBatch, noise: torch.Tensor, series: torch.Tensor, trial: Trial, psi_rad: torch.Tensor,
             shift_a: torch.Tensor) -> Fit:
    """Score and derivatives of each trial's particle and class at other places."""
    band = batch.band
    area, wave = cell_area(band), 2 * torch.pi * band.wave_px / band.box_a
    here = turned(series[trial.class_id], psi_rad)
    order = torch.arange(series.shape[-1], device=series.device)
    average, along = rings_of(here), rings_of(here * (1j * order))
    strength = area * batch.ctf[trial.row] ** 2 / noise[trial.row]
    matched = area * (batch.ctf * batch.images / noise)[trial.row] * phase_ramp(band.wave_px / band.box_a, -shift_a)
    score = (2 * (matched.conj() * average).real - strength * (average.real ** 2 + average.imag ** 2)).sum(1)
    slope = torch.stack([along, 1j * wave[:, 0] * average, 1j * wave[:, 1] * average], dim=1)
    gradient = 2 * (slope.conj() * (matched - strength * average)[:, None]).real.sum(2)
    information = 2 * torch.einsum("til,tjl->tij", slope.conj() * strength[:, None], slope).real
    return Fit(psi_rad, shift_a, score, gradient, information)


def _step(fit: Fit, damping: torch.Tensor, bound_rad: float, bound_a: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Damped steps of rotation (T,) and shift (T, 2), none longer than the bounds."""
    diagonal = fit.information.diagonal(dim1=1, dim2=2)
    least = 1e-6 * diagonal.amax(1, keepdim=True) + 1e-12
    system = fit.information + torch.diag_embed(damping[:, None] * diagonal + least)
    step = torch.linalg.solve(system.double(), fit.gradient.double()).to(fit.score)
    move = step[:, 1:]
    shorter = (bound_a / move.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
    return step[:, 0].clamp(-bound_rad, bound_rad), move * shorter


def _chosen(better: torch.Tensor, tried: Fit, before: Fit) -> Fit:
    """The tried places where they are better."""
    def pick(name: str) -> torch.Tensor:
        new, old = getattr(tried, name), getattr(before, name)
        return torch.where(better.view(-1, *[1] * (new.dim() - 1)), new, old)

    return Fit(*(pick(name) for name in Fit.__slots__))
