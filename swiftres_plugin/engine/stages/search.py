"""The global search: every particle against the whole gallery, at every shift, through a vector index."""
from __future__ import annotations

import numpy as np
import torch

from swiftres_plugin.engine.data.search import Candidates, Gallery, VectorIndex
from swiftres_plugin.engine.data.spectra import Comparison, ParticleBatch
from swiftres_plugin.engine.maths.fourier import phase_ramp

MATCHES_PER_SHIFT = 16


def shift_grid(max_shift_a: float, step_a: float) -> np.ndarray:
    """Square grid points within a circle: (S, 2) angstroms, the origin among them, nearest first."""
    count = int(np.ceil(max_shift_a / step_a))
    axis = np.arange(-count, count + 1) * step_a
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    radius = np.hypot(grid[:, 0], grid[:, 1])
    inside = radius <= max_shift_a + 0.5 * step_a
    return grid[inside][np.argsort(radius[inside], kind="stable")]


def search(batch: ParticleBatch, noise: torch.Tensor, centre_a: torch.Tensor, shifts_a: torch.Tensor, basis: Comparison,
           gallery: Gallery, index: VectorIndex, count: int) -> Candidates:
    """The `count` best distinct poses of each particle.

    noise: (B, L) noise power; centre_a: (B, 2) where each particle's shift grid `shifts_a` (S, 2) is centred.
    """
    moves = centre_a[:, None] + shifts_a[None]
    ramp = phase_ramp(batch.band.wave_px.to(moves.dtype) / batch.band.box_a, -moves)
    queries = basis.of_particles(batch, noise, ramp)
    scores, ids = index.search(queries.flatten(0, 1), MATCHES_PER_SHIFT)
    return distinct(gallery, moves, scores.view(len(moves), -1), ids.view(len(moves), -1), count)


def distinct(gallery: Gallery, moves: torch.Tensor, scores: torch.Tensor, ids: torch.Tensor, count: int) -> Candidates:
    """The best of each neighbourhood of 1.5 steps among the matches (B, S * k); padded with score -inf."""
    per_shift = scores.shape[1] // moves.shape[1]
    top, order = scores.sort(dim=1, descending=True, stable=True)
    top, order = top[:, :4 * count], order[:, :4 * count]
    rotation = gallery.image_to_volume[ids.gather(1, order)]
    shift = moves.gather(1, (order // per_shift)[..., None].expand(-1, -1, 2))
    flat = rotation.flatten(2)
    near = (flat @ flat.transpose(1, 2) - 1) / 2 > np.cos(1.5 * gallery.angular_step_rad)
    alive = torch.isfinite(top)
    picked = []
    for _ in range(count):
        best = torch.where(alive, top, -torch.inf).argmax(1)
        rows = torch.arange(len(top), device=top.device)
        picked.append(torch.where(alive[rows, best], best, -1))
        alive &= ~near[rows, best]
    chosen = torch.stack(picked, dim=1)
    rows = torch.arange(len(top), device=top.device)[:, None]
    score = torch.where(chosen >= 0, top[rows, chosen.clamp(min=0)], -torch.inf)
    return Candidates(rotation[rows, chosen.clamp(min=0)], shift[rows, chosen.clamp(min=0)], score)
