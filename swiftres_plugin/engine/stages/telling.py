"""How far apart a map's orientations look to its particles: what log-likelihood can tell them by, shell by shell."""
from __future__ import annotations

import torch

from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.maths.fourier import band_sums
from swiftres_plugin.engine.maths.slices import extract_slices

SLICES = 16  # of the map that are held at once


def separation(batch: ParticleBatch, noise: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """(B, S) log-likelihood by which a particle tells its orientation from another one by shells 0..s, as is expected.

    noise: (B, L); spread: (L,) `variance` of the map's slices. Two slices A and B differ by |A - B|^2 CTF^2 / noise in
    log-likelihood, which is twice their variance in the mean. What all slices have in common, as those of a hollow sphere
    have nearly everything, tells nothing.
    """
    each = batch.ctf ** 2 / noise * (2 * spread)
    return band_sums(each, batch.band).cumsum(1)


def variance(volume: torch.Tensor, rotation: torch.Tensor, wave_px: torch.Tensor) -> torch.Tensor:
    """(L,) variance of a map's slices over orientations (R, 3, 3), drawn evenly."""
    total = torch.zeros(len(wave_px), dtype=torch.complex64, device=volume.device)
    power = torch.zeros(len(wave_px), device=volume.device)
    for some in rotation.split(SLICES):
        slices = extract_slices(volume, some, wave_px)
        total += slices.sum(0)
        power += (slices.real ** 2 + slices.imag ** 2).sum(0)
    mean = total / len(rotation)
    return (power / len(rotation) - mean.real ** 2 - mean.imag ** 2).clamp(min=0)
