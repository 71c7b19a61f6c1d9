"""References for the vector search: slices of the map over a grid of orientations, as short vectors (maths/vectors.py)."""
from __future__ import annotations

import numpy as np
import torch

from swiftres_plugin.engine.compute import Compute
from swiftres_plugin.engine.data.search import Band, Gallery
from swiftres_plugin.engine.data.spectra import Comparison, ParticleBatch
from swiftres_plugin.engine.maths.metrics import MetricBasis, metric_weights, wiener_corrected
from swiftres_plugin.engine.maths.slices import extract_slices
from swiftres_plugin.engine.maths.vectors import Basis, as_real, likelihood_weights

BASIS_REFERENCES = 8192  # references the principal components are computed from


def find_basis(volume: torch.Tensor, rotations: np.ndarray, band: Band, strength: torch.Tensor, components: int) -> Basis:
    """Principal components (through the origin, so that inner products survive) of a sample of the references.

    strength: (L,) mean C^2 / noise of the particles, whose signal-to-noise ratio weighs the components; components: how many,
    0 for every coefficient.
    """
    weight, power_weight = likelihood_weights(strength, band)
    if components == 0:
        return Basis(band, weight, None, 1.0, power_weight)
    directions, explained = principal_components(volume, rotations, band, weight, components)
    return Basis(band, weight, directions, explained, power_weight)


def find_metric_basis(volume: torch.Tensor, rotations: np.ndarray, sample: ParticleBatch, noise: torch.Tensor, metric: str,
                      wiener: bool, components: int) -> MetricBasis:
    """What `find_basis` is for the likelihood, for another metric; `sample` are particles, with noise power (B, L)."""
    weight = metric_weights(metric, (sample.ctf ** 2 / noise).mean(0))
    directions = None
    if components:
        directions, _ = principal_components(volume, rotations, sample.band, weight, components)
    images = (wiener_corrected(sample.images, sample.ctf) if wiener else sample.images) * weight
    typical = float(2 * (images.abs() ** 2 / 2).mean().sqrt())  # of a query in one place
    return MetricBasis(sample.band, metric, wiener, weight, directions, 1 / typical)


def principal_components(volume: torch.Tensor, rotations: np.ndarray, band: Band, weight: torch.Tensor,
                         components: int) -> tuple[torch.Tensor, float]:
    """(2L, D) directions of largest power of the weighted references, and the share of the power that they hold."""
    step = max(1, len(rotations) // BASIS_REFERENCES)
    sample = torch.from_numpy(rotations[::step].astype(np.float32)).to(volume.device)
    covariance: torch.Tensor | None = None
    for block in sample.split(256):
        vectors = as_real(extract_slices(volume, block, band.wave_px) * weight)
        covariance = vectors.T @ vectors if covariance is None else covariance.addmm_(vectors.T, vectors)
    if covariance is None:
        raise ValueError("no references to build a basis from")
    values, directions = torch.linalg.eigh(covariance.double())
    count = min(components, len(values))
    explained = float(values[-count:].clamp(min=0).sum() / values.clamp(min=0).sum())
    return directions[:, -count:].flip(1).float().contiguous(), explained


def build_gallery(volume: torch.Tensor, rotations: np.ndarray, step_rad: float, basis: Comparison,
                  compute: Compute) -> Gallery:
    """Vectors of the references at `rotations` (G, 3, 3)."""
    matrices = torch.from_numpy(rotations.astype(np.float32)).to(volume.device)

    def sampled(rows: np.ndarray) -> torch.Tensor:
        return basis.of_references(extract_slices(volume, matrices[rows[0]:rows[-1] + 1], basis.band.wave_px))

    parts = compute.batches(np.arange(len(rotations)), len(basis.band) * 64)
    return Gallery(matrices, torch.cat(compute.map(sampled, parts)), step_rad)
