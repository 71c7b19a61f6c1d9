"""Averages of images in the plane: the regularised quotient of their sums, and how well two halves agree."""
from __future__ import annotations

import torch

from swiftres_plugin.engine.data.search import Band
from swiftres_plugin.engine.maths.adding import add_at
from swiftres_plugin.engine.maths.planes import plane_shells, planes_to_images
from swiftres_plugin.engine.maths.polar import real_rings_of, rings_of

LEAST_WEIGHT = 1e-3  # of the ring's mean: what a coefficient that no particle saw is divided by


def ring_correlation(numerator: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(K, R) correlation along each ring of the averages of two halves, whose sums are harmonics (K, 2, R, M)."""
    rings = numerator.shape[-2]
    sums, held = (values.unflatten(-1, (rings, -1)) for values in (rings_of(numerator), real_rings_of(weight)))
    values = sums / (held.clamp(min=0) + LEAST_WEIGHT * held.mean(-1, keepdim=True) + 1e-12)
    first, second = values[:, 0], values[:, 1]
    cross = (first * second.conj()).real.sum(-1)
    power = (first.abs() ** 2).sum(-1) * (second.abs() ** 2).sum(-1)
    return cross / power.sqrt().clamp(min=1e-30)


def smoothed(correlation: torch.Tensor) -> torch.Tensor:
    """Running means (..., S) over three shells: one shell of an image holds few coefficients."""
    padded = torch.cat([correlation[..., :1], correlation, correlation[..., -1:]], dim=-1)
    return (padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]) / 3


def signal_to_noise(correlation: torch.Tensor) -> torch.Tensor:
    """(K, S) of the average of both halves, 2 c / (1 - c); zero from the first shell without signal on."""
    curve = smoothed(correlation).clamp(0, 0.999)
    curve = curve * (curve > 0.05).cumprod(-1)
    return 2 * curve / (1 - curve)


def average_images(sums: torch.Tensor, box_px: int, signal_to_noise: torch.Tensor | None = None) -> torch.Tensor:
    """Images (K, n, n) of sums (K, 3, 2k+1, k+1) that are completed: numerator / (weight + mean of the shell / ratio).

    signal_to_noise: (K, S) of every class and shell; without it only coefficients that hardly any particle saw are damped.
    """
    shells = plane_shells(sums.shape[-1] - 1, sums.device)
    count = box_px // 2 + 1
    flat = shells.clamp(max=count).flatten()
    weight = sums[:, 2].flatten(1)
    mean = add_at(weight.new_zeros(len(sums), count + 1), 1, flat, weight)
    mean = mean / torch.bincount(flat, minlength=count + 1).clamp(min=1)
    ratio = torch.full_like(mean, 1 / LEAST_WEIGHT)
    if signal_to_noise is not None:
        ratio[:, :signal_to_noise.shape[1]] = signal_to_noise
        ratio[:, signal_to_noise.shape[1]:] = 0
    floor = mean / ratio.clamp(min=1e-6) + 1e-12
    divisor = (weight + floor[:, flat]).view(len(sums), *shells.shape)
    return planes_to_images(torch.complex(sums[:, 0], sums[:, 1]) / divisor, box_px)


def half_correlation(images: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """(K, S) correlation on shells 0..n//2 of the two images of each pair (K, 2, n, n) inside a window; 1 at the origin."""
    n = images.shape[-1]
    outside = 1 - window
    level = (images * outside).sum((-2, -1), keepdim=True) / outside.sum().clamp(min=1e-6)
    first, second = torch.fft.rfft2((images - level) * window).unbind(1)
    axis = torch.fft.fftfreq(n, 1 / n, device=images.device)
    shell = torch.hypot(axis[:, None], axis[None, :n // 2 + 1].abs()).round().long().clamp(max=n // 2 + 1).flatten()
    double = torch.full((n // 2 + 1,), 2.0, device=images.device)
    double[0] = 1.0

    def summed(values: torch.Tensor) -> torch.Tensor:
        sums = torch.zeros(len(values), n // 2 + 2, device=values.device)
        return add_at(sums, 1, shell, (values * double).flatten(1))[:, :n // 2 + 1]

    power = summed(first.abs() ** 2) * summed(second.abs() ** 2)
    curve = summed((first * second.conj()).real) / power.sqrt().clamp(min=1e-30)
    curve[:, 0] = 1
    return curve


def resolutions_a(correlation: torch.Tensor, band: Band, threshold: float) -> torch.Tensor:
    """(K,) resolution at which the smoothed correlation (K, S) first falls below a threshold; infinite at the first shell."""
    above = (smoothed(correlation)[:, 1:] >= threshold).long().cumprod(1).sum(1)
    return band.box_a / above.float()
