"""Where the two halves meet: Fourier shell correlation, solvent mask, and the references of the next iteration."""
from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from swiftres_plugin.engine.data.maps import Fsc, HalfMaps, Map
from swiftres_plugin.engine.maths.fourier import filter_shells, low_pass_gain, shell_sums, shells_3d
from swiftres_plugin.engine.maths.radial import angular_part

RANDOMISE_BELOW = 0.8  # phases are randomised from where the unmasked curve falls below this (Chen et al. 2013)
SIGNAL_LEAST = 0.05  # FSC below which a shell counts as empty, with everything finer


def correlation(first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
    """Fourier shell correlation of two cubes on shells 0..n//2 (float64); 1 at the origin."""
    n = first.shape[0]
    a, b = torch.fft.rfftn(first), torch.fft.rfftn(second)
    shells, count = shells_3d(n, first.device), n // 2 + 1
    weight = torch.full((n // 2 + 1,), 2.0, device=first.device)
    weight[0] = 1.0  # the plane x = 0 holds both of each pair, the others one
    if n % 2 == 0:
        weight[-1] = 1.0
    cross = shell_sums((a * b.conj()).real * weight, shells, count)
    power = shell_sums((a.abs() ** 2) * weight, shells, count) * shell_sums((b.abs() ** 2) * weight, shells, count)
    curve = (cross / power.sqrt().clamp(min=1e-30)).cpu().numpy()
    curve[0] = 1.0
    return curve


def compute_fsc(halves: HalfMaps, mask: np.ndarray | None = None, seed: int = 0) -> Fsc:
    """All four curves of two half maps; without a mask the masked curves repeat the unmasked one.

    corrected = (masked - randomised) / (1 - randomised) from two shells past the limit of randomisation (Chen et al.
    2013, Ultramicroscopy 135, 24): what the mask alone would correlate is taken away.
    """
    first, second = (torch.from_numpy(np.ascontiguousarray(h.voxels, dtype=np.float32)) for h in (halves.first, halves.second))
    n = first.shape[0]
    frequency = np.arange(n // 2 + 1) / (n * halves.first.pixel_size_a)
    unmasked = correlation(first, second)
    if mask is None:
        return Fsc(frequency, unmasked, unmasked, np.zeros_like(unmasked), unmasked)
    window = torch.from_numpy(np.ascontiguousarray(mask, dtype=np.float32))
    masked = correlation(first * window, second * window)
    below = np.flatnonzero(unmasked[1:] < RANDOMISE_BELOW)
    start = int(below[0]) + 1 if len(below) else n // 2
    generator = np.random.default_rng(seed)
    randomised = correlation(*(randomise_phases(h, start, generator) * window for h in (first, second)))
    corrected = masked.copy()
    late = np.arange(len(masked)) >= start + 2
    corrected[late] = ((masked - randomised) / np.maximum(1 - randomised, 1e-3))[late]
    return Fsc(frequency, unmasked, masked, np.where(late, randomised, masked), corrected)


def detail_fsc(halves: HalfMaps, whole: Fsc, known_shell: int, mask: np.ndarray | None = None, seed: int = 0) -> Fsc:
    """The curves of what differs between directions; up to `known_shell` those of the `whole` halves.

    Two hollow spheres agree to a fine shell by their profile alone, however their particles are turned. On the coarsest
    shells, though, symmetric particles look the same from everywhere, and the rest there is noise.
    """
    rest = (Map(angular_part(h.voxels), h.pixel_size_a, h.origin_a) for h in (halves.first, halves.second))
    detail, known = compute_fsc(HalfMaps(*rest), mask, seed), np.arange(len(whole.frequency)) <= known_shell
    return Fsc(whole.frequency, *(np.where(known, getattr(whole, name), getattr(detail, name))
                                  for name in ("unmasked", "masked", "randomised", "corrected")))


def randomise_phases(voxels: torch.Tensor, first_shell: int, generator: np.random.Generator) -> torch.Tensor:
    """The cube with random phases from `first_shell` on and the amplitudes it had."""
    n = voxels.shape[0]
    spectrum = torch.fft.rfftn(voxels)
    noise = torch.fft.rfftn(torch.from_numpy(generator.standard_normal((n, n, n), dtype=np.float32)))
    phase = noise / noise.abs().clamp(min=1e-20)
    late = shells_3d(n) >= first_shell
    return torch.fft.irfftn(torch.where(late, spectrum.abs() * phase, spectrum), s=voxels.shape)


def signal_to_noise(fsc: Fsc) -> np.ndarray:
    """Spectral signal-to-noise ratio of one half map per shell, FSC / (1 - FSC), zero from the first empty shell on."""
    curve = np.clip(fsc.corrected, 0.0, 0.999)
    empty = np.flatnonzero(curve[1:] < SIGNAL_LEAST)
    if len(empty):
        curve[int(empty[0]) + 1:] = 0.0
    return curve / (1 - curve)


def sphere_mask(box_px: int, radius_px: float, edge_px: float = 4.0) -> np.ndarray:
    """A soft sphere (n, n, n) float32: one to `radius_px`, then a cosine edge."""
    axis = np.arange(box_px) - box_px // 2
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    return (0.5 + 0.5 * np.cos(np.pi * np.clip((radius - radius_px) / edge_px, 0, 1))).astype(np.float32)


def solvent_mask(average: np.ndarray, pixel_size_a: float, resolution_a: float, radius_px: float) -> np.ndarray:
    """A soft mask around the density of a map; the sphere of `radius_px` where no boundary can be found.

    The map is low-passed, thresholded well above the level of the solvent (its mean and deviation near the sphere's
    surface), reduced to its large connected parts, grown and given a soft edge.
    """
    n = average.shape[0]
    smooth_a = max(15.0, 1.5 * resolution_a)
    smooth = filter_shells(torch.from_numpy(average), low_pass_gain(n, pixel_size_a, smooth_a)).numpy()
    axis = np.arange(n) - n // 2
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    inside = radius <= radius_px
    rim = smooth[inside & (radius > 0.85 * radius_px)]
    peak = float(np.percentile(smooth[inside], 99.5))
    level = float(np.median(rim))
    threshold = level + max(4 * _deviation(rim), 0.12 * (peak - level))
    body = _large_parts((smooth > threshold) & inside)
    share = body.sum() / inside.sum()
    if not 0.005 < share < 0.8:
        return sphere_mask(n, radius_px)
    return soften(body, grow_px=max(2.0, 0.35 * smooth_a / pixel_size_a), edge_px=5.0)


def _deviation(values: np.ndarray) -> float:
    """Standard deviation from the median absolute deviation: what stands out does not count."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _large_parts(body: np.ndarray) -> np.ndarray:
    """Connected parts of at least a tenth of the largest one's volume."""
    labels, count = ndimage.label(body)
    if count == 0:
        return body
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes >= 0.1 * sizes.max())[labels]


def soften(body: np.ndarray, grow_px: float, edge_px: float) -> np.ndarray:
    """A binary body grown by `grow_px` with a cosine edge of `edge_px` beyond: float32 in 0..1."""
    distance = ndimage.distance_transform_edt(~body)
    return (0.5 + 0.5 * np.cos(np.pi * np.clip((distance - grow_px) / edge_px, 0, 1))).astype(np.float32)


def masked_reference(voxels: torch.Tensor, mask: np.ndarray) -> torch.Tensor:
    """The map with its solvent level set to zero and everything outside the mask removed."""
    window = torch.from_numpy(mask).to(voxels.device)
    outside = 1 - window
    level = (voxels * outside).sum() / outside.sum().clamp(min=1e-6) if float(outside.sum()) > 1 else voxels.new_zeros(())
    return (voxels - level) * window


def join_low_resolution(first: torch.Tensor, second: torch.Tensor, last_shell: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Both maps with shells up to `last_shell` replaced by their average, so that the halves keep one orientation."""
    gain = (torch.arange(first.shape[0] // 2 + 1) <= last_shell).float()
    difference = filter_shells((first - second) / 2, gain)
    return first - difference, second + difference


def particle_diameter_px(voxels: np.ndarray) -> float:
    """Diameter of the sphere that holds 98 % of the density above a tenth of the maximum; within the box."""
    n = voxels.shape[0]
    axis = np.arange(n) - n // 2
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2).ravel()
    density = np.where(voxels > 0.1 * voxels.max(), voxels, 0).ravel().clip(min=0)
    order = np.argsort(radius)
    total = np.cumsum(density[order])
    reach = radius[order][np.searchsorted(total, 0.98 * total[-1])] if total[-1] > 0 else n / 2
    return float(np.clip(2 * reach, 0.2 * n, 0.95 * n))
