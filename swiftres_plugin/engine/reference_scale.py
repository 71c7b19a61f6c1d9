"""The grey scale of a map that is to be compared with particles whose poses are known."""
from __future__ import annotations

import numpy as np
import torch

from swiftres_plugin.engine.align import given_candidates
from swiftres_plugin.engine.data.search import Assignment
from swiftres_plugin.engine.engine import Engine
from swiftres_plugin.engine.refine import fitted_scale, sampled_rows
from swiftres_plugin.engine.stages.noise import per_sample


def scaled_reference(engine: Engine, reference: torch.Tensor, noise: np.ndarray, rows: np.ndarray, poses: Assignment,
                     resolution_a: float) -> torch.Tensor:
    """A map on the grey scale of the particles, by least squares over a sample of `rows` at their poses."""
    band = engine.spectra.band.up_to(engine.spectra.band.shell_of(resolution_a)).to(engine.device)
    few = sampled_rows(rows)
    batch = engine.batch(few, band)
    volume = engine.volume(reference, band.last_shell)
    given = given_candidates(poses, few, engine.device)
    return reference * max(fitted_scale(batch, per_sample(noise, batch), volume, given), 1e-6)
