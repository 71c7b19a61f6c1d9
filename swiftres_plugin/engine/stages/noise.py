"""Noise power of each optics group on every shell: first from the images, then from what the map does not explain."""
from __future__ import annotations

import numpy as np
import torch

from swiftres_plugin.engine.data.search import Band
from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.maths.adding import add_at
from swiftres_plugin.engine.maths.fourier import band_sums


def shell_means(values: torch.Tensor, band: Band) -> torch.Tensor:
    """Mean of real `values` (..., L) over each shell: (..., S) with S = last shell + 1; shell 0 repeats shell 1."""
    size = torch.bincount(band.shell.to(values.device), minlength=band.last_shell + 1).clamp(min=1)
    means = band_sums(values, band) / size
    means[..., 0] = means[..., 1]
    return means


def power_sums(batch: ParticleBatch, groups: int, explained: torch.Tensor | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the power of images minus `explained` per optics group and shell, (groups, S), and particles per group."""
    residual = batch.images if explained is None else batch.images - explained
    power = shell_means(residual.real ** 2 + residual.imag ** 2, batch.band).double()
    sums = torch.zeros((groups, power.shape[1]), dtype=torch.float64, device=power.device)
    add_at(sums, 0, batch.optics_group, power)
    counts = torch.bincount(batch.optics_group, minlength=groups)
    return sums.cpu().numpy(), counts.cpu().numpy()


def noise_power(parts: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """(groups, S) from partial sums. Groups of few particles lean on the average of all (weight of 20 particles)."""
    sums = np.sum([p[0] for p in parts], axis=0)
    counts = np.sum([p[1] for p in parts], axis=0)[:, None]
    common = sums.sum(0) / counts.sum()
    power = (sums + 20 * common) / (counts + 20)
    return np.maximum(power, 1e-6 * power.max()).astype(np.float32)


def per_sample(noise: np.ndarray, batch: ParticleBatch) -> torch.Tensor:
    """Noise power of each coefficient of each particle in the batch: (B, L)."""
    table = torch.from_numpy(noise).to(batch.images.device)
    return table[:, batch.band.shell][batch.optics_group]
