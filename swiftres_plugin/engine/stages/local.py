"""Exact scores and continuous refinement of poses: every coefficient, the particle's own CTF, analytic derivatives.

For a particle X with CTF C, noise power N and a slice V of the map at rotation R and shift t, the model is
M = C V(R k) exp(2 pi i k . t) and

    log p = sum (2 Re(conj(X) M) - |M|^2) / N

A rotation is changed from the right by a vector w in the image frame, R exp([w]x): a sample at k moves by w x k there.
Levenberg-Marquardt steps use the Jacobian of M over (w, t) and are taken only where the likelihood rises.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from swiftres_plugin.engine.data.search import Band, Candidates
from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.maths.fourier import phase_ramp
from swiftres_plugin.engine.maths.fused import can_fuse, fused_derivatives, fused_scores
from swiftres_plugin.engine.maths.geometry import rotation_vector_to_matrix
from swiftres_plugin.engine.maths.slices import extract_slices, slices_and_gradients

FIRST_DAMPING = 1e-2
DONE_DAMPING = 1e4  # no step helps any more
MOST_SYSTEMS = 1 << 14  # small linear systems solved at once: GPU libraries fail from some ten thousand on
WIDEST_VARIANCE = 1e9  # of a pose the image says nothing about


@dataclass(frozen=True, eq=False, slots=True)
class Fit:
    """Poses (B, ...) with their log-likelihood (B,), its gradient (B, 5) and curvature (B, 5, 5) over (w, t)."""

    rotation: torch.Tensor
    shift_a: torch.Tensor
    score: torch.Tensor
    gradient: torch.Tensor
    curvature: torch.Tensor


@dataclass(frozen=True, eq=False, slots=True)
class Prior:
    """A Gaussian about poses (B, 3, 3), (B, 2) that are known already: deviation of each angle (rad) and shift (A), both
    positive; infinite where nothing is known."""

    rotation: torch.Tensor
    shift_a: torch.Tensor
    angle_rad: float
    move_a: float

    def take(self, rows: torch.Tensor) -> Prior:
        return Prior(self.rotation[rows], self.shift_a[rows], self.angle_rad, self.move_a)

    def added(self, fit: Fit) -> Fit:
        """The fit with the logarithm of this prior in its score, gradient and curvature."""
        away = torch.cat([turn_between(self.rotation, fit.rotation), fit.shift_a - self.shift_a], dim=1)
        strength = torch.tensor([self.angle_rad ** -2] * 3 + [self.move_a ** -2] * 2).to(away)
        pull = strength * away
        return Fit(fit.rotation, fit.shift_a, fit.score - 0.5 * (pull * away).sum(1), fit.gradient - pull,
                   fit.curvature + torch.diag(strength))


def turn_between(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(B, 3) axis times angle (rad, below pi) of the rotations inv(first) @ second."""
    turn = first.transpose(1, 2) @ second
    axis = 0.5 * torch.stack([turn[:, 2, 1] - turn[:, 1, 2], turn[:, 0, 2] - turn[:, 2, 0], turn[:, 1, 0] - turn[:, 0, 1]], 1)
    sine = axis.norm(dim=1, keepdim=True)
    cosine = (turn.diagonal(dim1=1, dim2=2).sum(1, keepdim=True) - 1) / 2
    return axis * torch.where(sine > 1e-6, torch.atan2(sine, cosine) / sine.clamp(min=1e-6), torch.ones_like(sine))


def model(batch: ParticleBatch, slices: torch.Tensor, shift_a: torch.Tensor) -> torch.Tensor:
    """What the map predicts of each image: CTF, slice and shift (B, L)."""
    wave = batch.band.wave_px.to(shift_a.dtype) / batch.band.box_a
    return phase_ramp(wave, shift_a) * slices * batch.ctf


def log_likelihood(batch: ParticleBatch, noise: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
    """(B,) relative to an empty reference; noise (B, L)."""
    real, imaginary = predicted.real, predicted.imag
    cross = real * (2 * batch.images.real - real) + imaginary * (2 * batch.images.imag - imaginary)
    return (cross / noise).sum(1)


def score_poses(batch: ParticleBatch, noise: torch.Tensor, volume: torch.Tensor, rotation: torch.Tensor,
                shift_a: torch.Tensor) -> torch.Tensor:
    """Log-likelihood of one pose for each particle: (B,)."""
    if can_fuse(batch, volume):
        return fused_scores(batch, noise, volume, rotation, shift_a)
    return plain_scores(batch, noise, volume, rotation, shift_a)


def plain_scores(batch: ParticleBatch, noise: torch.Tensor, volume: torch.Tensor, rotation: torch.Tensor,
                 shift_a: torch.Tensor) -> torch.Tensor:
    """The same on any device, step by step."""
    slices = extract_slices(volume, rotation, batch.band.wave_px)
    return log_likelihood(batch, noise, model(batch, slices, shift_a))


def score_candidates(batch: ParticleBatch, noise: torch.Tensor, volume: torch.Tensor, found: Candidates) -> Candidates:
    """The candidates with exact scores; a candidate of score -inf stays at -inf."""
    scores = found.score.clone()
    for k in range(scores.shape[1]):
        rows = torch.nonzero(scores[:, k].isfinite())[:, 0]
        if len(rows):
            scores[rows, k] = score_poses(batch.take(rows), noise[rows], volume, found.image_to_volume[rows, k],
                                          found.shift_a[rows, k])
    return Candidates(found.image_to_volume, found.shift_a, scores)


def evaluate(batch: ParticleBatch, noise: torch.Tensor, volume: torch.Tensor, rotation: torch.Tensor,
             shift_a: torch.Tensor) -> Fit:
    """Score, gradient and Gauss-Newton curvature of the log-likelihood at one pose per particle."""
    if can_fuse(batch, volume):
        return Fit(rotation, shift_a, *fused_derivatives(batch, noise, volume, rotation, shift_a))
    return plain_evaluate(batch, noise, volume, rotation, shift_a)


def plain_evaluate(batch: ParticleBatch, noise: torch.Tensor, volume: torch.Tensor, rotation: torch.Tensor,
                   shift_a: torch.Tensor) -> Fit:
    """The same on any device, step by step."""
    slices, gradient = slices_and_gradients(volume, rotation, batch.band.wave_px)
    predicted = model(batch, slices, shift_a)
    score = log_likelihood(batch, noise, predicted)
    jacobian = _jacobian(batch, predicted, gradient, shift_a)
    weight = noise.rsqrt()[:, None]
    jacobian = torch.view_as_real(jacobian * weight).flatten(2)
    residual = torch.view_as_real((batch.images - predicted) * weight[:, 0]).flatten(1)
    first = 2 * (jacobian @ residual[..., None])[..., 0]
    return Fit(rotation, shift_a, score, first, 2 * jacobian @ jacobian.transpose(1, 2))


def explained(batch: ParticleBatch, volume: torch.Tensor, rotation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What a map predicts of centred images (B, L), and how that changes with (w, t) of their poses (B, 5, L)."""
    slices, gradient = slices_and_gradients(volume, rotation, batch.band.wave_px)
    centred = torch.zeros_like(rotation[:, 0, :2])
    predicted = model(batch, slices, centred)
    return predicted, _jacobian(batch, predicted, gradient, centred)


def _jacobian(batch: ParticleBatch, predicted: torch.Tensor, gradient: torch.Tensor, shift_a: torch.Tensor) -> torch.Tensor:
    """d model / d (w_x, w_y, w_z, t_x, t_y): (B, 5, L) complex."""
    wave = batch.band.wave_px.to(shift_a.dtype)
    kx, ky = wave[:, 0], wave[:, 1]
    carrier = phase_ramp(wave / batch.band.box_a, shift_a) * batch.ctf
    beam = carrier * gradient[..., 2]
    turn = carrier * (kx * gradient[..., 1] - ky * gradient[..., 0])
    turning = 2j * np.pi / batch.band.box_a * predicted
    return torch.stack([ky * beam, -kx * beam, turn, kx * turning, ky * turning], dim=1)


def polish(batch: ParticleBatch, noise: torch.Tensor, volume: torch.Tensor, rotation: torch.Tensor, shift_a: torch.Tensor,
           steps: int, tolerance_rad: float, tolerance_a: float, bound_rad: float, bound_a: float,
           prior: Prior | None = None) -> Fit:
    """Levenberg-Marquardt from one pose per particle; rows stop when a step is smaller than the tolerances.

    The first step moves the shift only. Steps are cut to the bounds; a step that lowers the likelihood is undone and the
    damping raised. The last, small step is taken as the curvature predicts it. With a prior it is the likelihood times the
    prior that rises.
    """
    fit = held(evaluate(batch, noise, volume, rotation, shift_a), prior)
    damping = torch.full_like(fit.score, FIRST_DAMPING)
    active = torch.arange(len(fit.score), device=fit.score.device)
    for step in range(steps):
        part = _rows(fit, active)
        move = bounded(_step(part, damping[active]), bound_rad, bound_a).nan_to_num()
        small = (move[:, :3].norm(dim=1) < tolerance_rad) & (move[:, 3:].norm(dim=1) < tolerance_a)
        sure = small & (damping[active] <= FIRST_DAMPING)
        fit = _replaced(fit, active[sure], _predicted(_rows(part, sure), move[sure]))
        active, part, move = active[~small], _rows(part, ~small), move[~small]
        if len(active) == 0:
            break
        if step == 0:
            move = bounded(_shift_step(part, damping[active]), bound_rad, bound_a).nan_to_num()
        trial = held(evaluate(batch.take(active), noise[active], volume, *_moved(part, move)),
                     None if prior is None else prior.take(active))
        better = trial.score > part.score
        fit = _replaced(fit, active[better], _rows(trial, better))
        damping[active] = torch.where(better, damping[active] * 0.2, damping[active] * 10).clamp(min=1e-4)
        active = active[damping[active] < DONE_DAMPING]
    return fit


def held(fit: Fit, prior: Prior | None) -> Fit:
    """The fit under a prior, if there is one."""
    return fit if prior is None else prior.added(fit)


def _moved(fit: Fit, move: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotations and shifts (A) after the steps `move` (B, 5)."""
    return fit.rotation @ rotation_vector_to_matrix(move[:, :3]), fit.shift_a + move[:, 3:]


def _predicted(fit: Fit, move: torch.Tensor) -> Fit:
    """The fit after small steps, from its gradient and curvature alone."""
    bend = (fit.curvature @ move[..., None])[..., 0]
    gain = (move * (fit.gradient - 0.5 * bend)).sum(1)
    return Fit(*_moved(fit, move), fit.score + gain, fit.gradient - bend, fit.curvature)


def _step(fit: Fit, damping: torch.Tensor) -> torch.Tensor:
    """Damped Newton step (B, 5)."""
    return _solve(_damped(fit, damping), fit.gradient)


def _shift_step(fit: Fit, damping: torch.Tensor) -> torch.Tensor:
    """The same in which the rotation stays."""
    step = torch.zeros_like(fit.gradient)
    step[:, 3:] = _solve(_damped(fit, damping)[:, 3:, 3:], fit.gradient[:, 3:])
    return step


def _damped(fit: Fit, damping: torch.Tensor) -> torch.Tensor:
    """Systems (B, 5, 5) of damped Newton steps."""
    diagonal = fit.curvature.diagonal(dim1=1, dim2=2)
    floor = 1e-6 * diagonal.amax(1, keepdim=True) + 1e-12
    return fit.curvature + torch.diag_embed((diagonal + floor) * damping[:, None] + floor)


def _solve(systems: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    parts = zip(systems.split(MOST_SYSTEMS), right.split(MOST_SYSTEMS))
    return torch.cat([torch.linalg.solve(system, side) for system, side in parts])


def covariance(fit: Fit) -> torch.Tensor:
    """(B, 5, 5) float64 inverse of the curvature, at most `WIDEST_VARIANCE` where the image says nothing."""
    curvature = fit.curvature.double()
    ridge = torch.diag_embed(1e-6 * curvature.diagonal(dim1=1, dim2=2) + 1 / WIDEST_VARIANCE)
    return torch.cat([torch.linalg.inv(part) for part in (curvature + ridge).split(MOST_SYSTEMS)])


def bounded(step: torch.Tensor, bound_rad: float, bound_a: float) -> torch.Tensor:
    """Steps (B, 5) shortened so that neither rotation nor shift passes its bound."""
    turn = (bound_rad / step[:, :3].norm(dim=1).clamp(min=1e-12)).clamp(max=1)
    move = (bound_a / step[:, 3:].norm(dim=1).clamp(min=1e-12)).clamp(max=1)
    return torch.cat([step[:, :3] * turn[:, None], step[:, 3:] * move[:, None]], dim=1)


def _rows(fit: Fit, index: torch.Tensor) -> Fit:
    return Fit(fit.rotation[index], fit.shift_a[index], fit.score[index], fit.gradient[index], fit.curvature[index])


def _replaced(fit: Fit, index: torch.Tensor, rows: Fit) -> Fit:
    """`fit` with the rows at `index` replaced."""
    def put(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        return old.index_copy(0, index, new)
    return Fit(put(fit.rotation, rows.rotation), put(fit.shift_a, rows.shift_a), put(fit.score, rows.score),
               put(fit.gradient, rows.gradient), put(fit.curvature, rows.curvature))


def resolution_steps(band: Band, particle_a: float) -> tuple[float, float]:
    """(angle in radians, shift in angstroms) over which a map changes at the band's finest resolution."""
    finest_a = band.box_a / band.last_shell
    return float(np.arcsin(min(1.0, finest_a / particle_a))), finest_a / 2
