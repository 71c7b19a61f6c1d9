"""The search without shortcuts: every reference at every shift by its exact likelihood. The measure of the vector search."""
from __future__ import annotations

import numpy as np
import torch

from swiftres_plugin.engine.data.search import Candidates
from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.maths.fourier import ramps_back
from swiftres_plugin.engine.maths.slices import extract_slices
from swiftres_plugin.engine.maths.vectors import as_real

BLOCK_BYTES = 32 << 20  # slices and scores held at once


def exhaustive_search(batch: ParticleBatch, noise: torch.Tensor, volume: torch.Tensor, rotations: torch.Tensor,
                      moves: torch.Tensor) -> Candidates:
    """The likeliest of all `rotations` (G, 3, 3) at all of a particle's `moves` (B, S, 2): one candidate each.

    noise: (B, L). Every coefficient counts, with the particle's own CTF.
    """
    ramp = ramps_back(batch.band, moves)
    queries = as_real(2 * (batch.ctf * batch.images / noise)[:, None] * ramp).flatten(0, 1)
    strength = batch.ctf ** 2 / noise
    best = torch.full((len(moves),), -torch.inf, device=moves.device)
    place = torch.zeros((2, len(moves)), dtype=torch.int64, device=moves.device)
    size = max(1, BLOCK_BYTES // (4 * (len(queries) + 4 * len(batch.band))))
    for first in range(0, len(rotations), size):
        slices = extract_slices(volume, rotations[first:first + size], batch.band.wave_px)
        cross = (queries @ as_real(slices).T).view(*moves.shape[:2], -1).max(1)
        score, reference = (cross.values - strength @ (slices.real ** 2 + slices.imag ** 2).T).max(1)
        shift = cross.indices.gather(1, reference[:, None])[:, 0]
        better = score > best
        place = torch.where(better, torch.stack([first + reference, shift]), place)
        best = torch.where(better, score, best)
    rows = torch.arange(len(moves), device=moves.device)
    return Candidates(rotations[place[0]][:, None], moves[rows, place[1]][:, None], best[:, None])


def holds_best(found: Candidates, best: Candidates, operators: np.ndarray, angle_rad: float, shift_a: float) -> np.ndarray:
    """(B,) whether a candidate stands within `angle_rad` (of any symmetry mate) and `shift_a` of the `best` pose."""
    mates = torch.from_numpy(operators).to(best.image_to_volume) @ best.image_to_volume
    trace = torch.einsum("bkij,bmij->bkm", found.image_to_volume, mates)
    near = ((trace - 1) / 2 >= np.cos(angle_rad)).any(2) & ((found.shift_a - best.shift_a).norm(dim=2) <= shift_a)
    return (near & found.score.isfinite()).any(1).cpu().numpy()
