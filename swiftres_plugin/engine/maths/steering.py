"""Components of references that turn in the plane by a phase, so that no reference needs to be made for every angle.

On a ring of Fourier space a slice is a Fourier series, and a turn by psi multiplies its term of order m by exp(i m psi). All
turns together have principal components that are a function of the radius times such a term: in them a reference is

    w(|k|) R(k) = sum over components of a f(|k|) exp(i m phi)  +  its partner of order -m

with numbers a that become a exp(i m psi) when it turns (steerable components; Zhao and Singer, J. Opt. Soc. Am. A 30, 871,
2013). The partner makes the image real: it is (-1)^m times the conjugate, so even orders give the real part of R and odd ones
the imaginary part.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import CubicSpline

from swiftres_plugin.engine.data.search import Band
from swiftres_plugin.engine.data.spectra import ParticleBatch
from swiftres_plugin.engine.maths.polar import angle_count, harmonics, ring_angles, rings_at
from swiftres_plugin.engine.maths.slices import extract_slices
from swiftres_plugin.engine.maths.vectors import as_real, shell_sizes, shell_sums_of

BLOCK = 64  # slices sampled at once
ENOUGH = 0.99  # share of the references' power: components beyond it are left out


@dataclass(frozen=True, eq=False, slots=True)
class Steering:
    """How spectra become J complex numbers, of which a turn by psi multiplies each by exp(i order psi).

    order: (J,), even ones first; weight: (L,) what spectra are divided by and references multiplied with; columns: (2L, 2J)
    that queries are projected on; rings: where references are sampled, R rings of A angles; into: (J, R) that takes a
    reference's Fourier series to its numbers; ring_shares: (L, R) that shares coefficients out over the rings beside them;
    explained: share of the references' weighted power that the numbers hold.
    """

    band: Band
    order: torch.Tensor
    weight: torch.Tensor
    columns: torch.Tensor
    rings: Band
    into: torch.Tensor
    ring_shares: torch.Tensor
    explained: float

    def to(self, device: torch.device) -> Steering:
        return Steering(self.band.to(device), self.order.to(device), self.weight.to(device), self.columns.to(device),
                        self.rings.to(device), self.into.to(device), self.ring_shares.to(device), self.explained)

    def of_references(self, volume: torch.Tensor, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Numbers (G, J) and mean power on each ring (G, R) of slices of a Fourier volume at rotations (G, 3, 3)."""
        parts = [self._of_series(ring_series(volume, some, self.rings)) for some in frames.split(BLOCK)]
        numbers, power = zip(*parts)
        return torch.cat(numbers), torch.cat(power)

    def _of_series(self, series: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        power = series.real ** 2 + series.imag ** 2
        numbers = torch.einsum("grj,jr->gj", series[..., self.order], self.into)
        return numbers, 2 * power.sum(-1) - power[..., 0]

    def of_particles(self, batch: ParticleBatch, noise: torch.Tensor, ramp: torch.Tensor) -> torch.Tensor:
        """(B, M, J) numbers q of particles moved by `ramp` (B or 1, M, L), with noise power (B, L).

        The likelihood of a reference a, but for its power, is the sum of Re(conj(q) a).
        """
        matched = (2 * batch.ctf * batch.images / (noise * self.weight))[:, None] * ramp
        return torch.view_as_complex((as_real(matched) @ self.columns).unflatten(-1, (-1, 2)))

    def power_of_particles(self, batch: ParticleBatch, noise: torch.Tensor) -> torch.Tensor:
        """(B, R): what a reference of unit power on a ring takes off the likelihood of each particle."""
        return (batch.ctf ** 2 / noise) @ self.ring_shares


def find_steering(volume: torch.Tensor, frames: torch.Tensor, band: Band, strength: torch.Tensor, most: int) -> Steering:
    """The components that hold most of the slices at `frames` (G, 3, 3) and all their turns: at most so many, or `ENOUGH`.

    strength: (L,) mean C^2 / noise of the particles, whose signal-to-noise ratio weighs the components.
    """
    shells, device = np.arange(1, band.last_shell + 1), volume.device
    radius = np.arange(2, 2 * band.last_shell + 2) / 2  # twice as dense as shells, to half a shell beyond the last
    rings = rings_at(band.box_px, band.pixel_size_a, torch.from_numpy(radius), angle_count(band.last_shell + 1))
    density = (shell_sums_of(strength, band) / shell_sizes(band, strength.device)).cpu().numpy()
    density = np.sqrt(density.clip(min=1e-3 * density.max()))
    weigh = np.sqrt(radius) * np.interp(radius, shells, density)
    values, radial = components_of(volume, frames, rings, torch.from_numpy(weigh).float().to(device))
    best, explained = largest(values, most)
    order, place = best // values.shape[1], best % values.shape[1]
    functions = radial[order, :, place]
    length = np.hypot(*band.wave_px.cpu().double().numpy().T)
    weight, shares = (torch.from_numpy(v).float() for v in (np.interp(length, shells, density), ring_shares(length, radius)))
    columns = query_columns(functions.numpy() / np.sqrt(radius), radius, order.numpy(), band)
    into = (functions.conj() * torch.from_numpy(weigh)).to(torch.complex64)
    return Steering(band, order, weight, columns, rings, into, shares, explained).to(device)


def largest(values: torch.Tensor, most: int) -> tuple[torch.Tensor, float]:
    """Numbers of the components of largest power (M, R), those of even order first, and the share of all power they hold.

    At most so many, or as many as hold `ENOUGH`; components of order above 0 count for their partners too.
    """
    share = values * torch.where(torch.arange(len(values)) > 0, 2.0, 1.0)[:, None]
    best = values.flatten().topk(min(most, values.numel())).indices
    held = share.flatten()[best].cumsum(0) / share.sum()
    count = min(len(best), int((held < ENOUGH).sum()) + 1)
    best = best[:count]
    return best[(best // values.shape[1] % 2).sort(stable=True).indices], float(held[count - 1])


def ring_series(volume: torch.Tensor, frames: torch.Tensor, rings: Band) -> torch.Tensor:
    """Fourier series (G, R, A/2 + 1) of slices along the rings, mean squares their power."""
    slices = extract_slices(volume, frames, rings.wave_px.to(volume.device))
    return harmonics(slices, rings) / ring_angles(rings)


def ring_shares(length: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """(L, R) weights that interpolate, at each coefficient `length` (L,) from the origin, values on rings."""
    below = np.clip(np.searchsorted(radius, length, side="right") - 1, 0, len(radius) - 2)
    above = (length - radius[below]) / (radius[below + 1] - radius[below])
    shares, row = np.zeros((len(length), len(radius))), np.arange(len(length))
    shares[row, below], shares[row, below + 1] = 1 - above, above
    return shares


def components_of(volume: torch.Tensor, frames: torch.Tensor, rings: Band,
                  weigh: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Power (M, R) and functions of the radius (M, R, R), the last axis numbering them, of each order's components."""
    covariance: torch.Tensor | None = None
    for some in frames.split(BLOCK):
        series = (ring_series(volume, some, rings) * weigh[:, None]).permute(2, 1, 0)
        part = (series @ series.mH).cpu().to(torch.complex128)
        covariance = part if covariance is None else covariance + part
    if covariance is None:
        raise ValueError("no references to find components of")
    values, radial = torch.linalg.eigh(covariance)
    return values.clamp(min=0), radial


def query_columns(functions: np.ndarray, radius: np.ndarray, order: np.ndarray, band: Band) -> torch.Tensor:
    """(2L, 2J): the real and imaginary part of every coefficient of the band as each number's two parts change them.

    functions: (J, R) complex functions of the radius.
    """
    kx, ky = band.wave_px.cpu().double().numpy().T
    wave = CubicSpline(radius, functions, axis=1)(np.hypot(kx, ky)) * np.exp(1j * order[:, None] * np.arctan2(ky, kx))
    wave *= np.where(order > 0, 2.0, 1.0)[:, None]
    even = (order % 2 == 0)[:, None]
    zero = np.zeros(wave.shape)
    by_real = np.stack([np.where(even, wave.real, zero), np.where(even, zero, wave.imag)], axis=-1)
    by_imaginary = np.stack([np.where(even, -wave.imag, zero), np.where(even, zero, wave.real)], axis=-1)
    by_imaginary[order == 0] = 0
    columns = np.stack([by_real, by_imaginary])  # (2, J, L, 2)
    return torch.from_numpy(columns.transpose(2, 3, 1, 0).reshape(2 * len(kx), -1)).float()
