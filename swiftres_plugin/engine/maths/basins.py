"""Which of many matches are poses of their own."""
from __future__ import annotations

import numpy as np
import torch

from swiftres_plugin.engine.data.search import Candidates

PER_CANDIDATE = 4  # best matches that are looked at for each candidate wanted


def distinct(rotation: torch.Tensor, shift_a: torch.Tensor, score: torch.Tensor, step_rad: float, count: int) -> Candidates:
    """The best of each neighbourhood of 1.5 steps among matches (B, M, ...) sorted by score; padded with score -inf."""
    flat = rotation.flatten(2)
    near = (flat @ flat.transpose(1, 2) - 1) / 2 > np.cos(1.5 * step_rad)
    alive = torch.isfinite(score)
    rows = torch.arange(len(score), device=score.device)
    picked = []
    for _ in range(count):
        best = torch.where(alive, score, -torch.inf).argmax(1)
        picked.append(torch.where(alive[rows, best], best, -1))
        alive &= ~near[rows, best]
    chosen = torch.stack(picked, dim=1)
    place = chosen.clamp(min=0)
    found = torch.where(chosen >= 0, score.gather(1, place), -torch.inf)
    return Candidates(rotation[rows[:, None], place], shift_a[rows[:, None], place], found)
