"""Noise in place of detail: images whose phases beyond a limit are random (Chen et al. 2013, Ultramicroscopy 135, 24)."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from swiftres_plugin.engine.data.particles import Particles, ParticleSource


@dataclass(frozen=True, eq=False, slots=True)
class SubstitutedSource:
    """A `ParticleSource` over another, whose images keep their amplitudes and lose their phases beyond `last_shell`.

    An image that stands twice in the set gets the same phases twice, as it would have the same noise twice.
    """

    source: ParticleSource
    last_shell: int
    seed: int

    @property
    def particles(self) -> Particles:
        return self.source.particles

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Images of the particles at `rows`: (B, n, n) float32."""
        images = self.source.read(rows)
        found = self.particles
        names = zip(found.stack_index[rows].tolist(), found.slice_index[rows].tolist())
        noise = np.stack([np.random.default_rng([self.seed, *name]).standard_normal(images.shape[1:], dtype=np.float32)
                          for name in names])
        return with_phases_of(torch.from_numpy(images), torch.from_numpy(noise), self.last_shell).numpy()


def with_phases_of(images: torch.Tensor, noise: torch.Tensor, last_shell: int) -> torch.Tensor:
    """Images (B, n, n) with the phases of `noise` (B, n, n) on the shells past `last_shell`."""
    n = images.shape[-1]
    spectrum, other = torch.fft.rfft2(images), torch.fft.rfft2(noise)
    axis = torch.fft.fftfreq(n, 1 / n)
    radius = (axis[:, None] ** 2 + torch.arange(n // 2 + 1) ** 2).sqrt()
    replaced = spectrum.abs() * other / other.abs().clamp(min=1e-20)
    return torch.fft.irfft2(torch.where(radius.round() > last_shell, replaced, spectrum), s=images.shape[-2:])
