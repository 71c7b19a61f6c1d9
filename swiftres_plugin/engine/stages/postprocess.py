"""Where the two halves meet: Fourier shell correlation, solvent mask, and the references of the next iteration."""
from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from swiftres_plugin.engine.data.maps import Fsc, HalfMaps, Map
from swiftres_plugin.engine.maths import padded
from swiftres_plugin.engine.maths.cubes import Planes, cube_of, cube_spectrum, mapped, planes_of, spectrum_slabs
from swiftres_plugin.engine.maths.fourier import add_to_shells, filter_shells, filtered, low_pass_gain, shells_3d
from swiftres_plugin.engine.maths.padded import Empty, slabs
from swiftres_plugin.engine.maths.radial import angular_part

RANDOMISE_BELOW = 0.8  # phases are randomised from where the unmasked curve falls below this (Chen et al. 2013)
DISTANCE_BYTES = 60  # working memory for the distance of a voxel to a body,
DISTANCE_SLABS = 8  # and how many times the memory of a slab that may take: thin ones would mostly look at their neighbours
SIGNAL_LEAST = 0.05  # FSC below which a shell counts as empty, with everything finer


def correlation(first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
    """Fourier shell correlation of two cubes on shells 0..n//2 (float64); 1 at the origin."""
    return correlation_of(planes_of(first), planes_of(second), len(first))


def correlation_of(first: Planes, second: Planes, box_px: int, empty: Empty | None = None) -> np.ndarray:
    """The same of cubes (n, n, n), n = `box_px`, that give their planes; empty: makes their transforms."""
    cross, *power = shell_products(cube_spectrum(first, box_px, empty), cube_spectrum(second, box_px, empty))
    curve = (cross / (power[0] * power[1]).sqrt().clamp(min=1e-30)).cpu().numpy()
    curve[0] = 1.0
    return curve


def shell_products(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(3, n//2+1) float64: over each shell, the sum of the products of two cubes, and of the squares of each, from their
    `rfftn` (n, n, n//2+1)."""
    n, count = len(a), len(a) // 2 + 1
    weight = torch.full((count,), 2.0, device=a.device)
    weight[0] = 1.0  # the plane x = 0 holds both of each pair, the others one
    if n % 2 == 0:
        weight[-1] = 1.0
    sums = torch.zeros((3, count + 1), dtype=torch.float64, device=a.device)
    for slab in spectrum_slabs(a):
        shells = shells_3d(n, a.device, slab)
        add_to_shells(sums[0], (a[slab] * b[slab].conj()).real * weight, shells)
        add_to_shells(sums[1], (a[slab].abs() ** 2) * weight, shells)
        add_to_shells(sums[2], (b[slab].abs() ** 2) * weight, shells)
    return sums[:, :count]


def compute_fsc(halves: HalfMaps, mask: np.ndarray | None = None, seed: int = 0, empty: Empty | None = None) -> Fsc:
    """All four curves of two half maps; without a mask the masked curves repeat the unmasked one. empty: makes the arrays.

    corrected = (masked - randomised) / (1 - randomised) from two shells past the limit of randomisation (Chen et al.
    2013, Ultramicroscopy 135, 24): what the mask alone would correlate is taken away.
    """
    first, second = (torch.from_numpy(np.ascontiguousarray(h.voxels, dtype=np.float32)) for h in (halves.first, halves.second))
    n = first.shape[0]
    frequency = np.arange(n // 2 + 1) / (n * halves.first.pixel_size_a)
    unmasked = correlation_of(planes_of(first), planes_of(second), n, empty)
    if mask is None:
        return Fsc(frequency, unmasked, unmasked, np.zeros_like(unmasked), unmasked)
    window = torch.from_numpy(np.ascontiguousarray(mask, dtype=np.float32))

    def within(voxels: torch.Tensor) -> Planes:
        return lambda slab: voxels[slab] * window[slab]

    masked = correlation_of(within(first), within(second), n, empty)
    below = np.flatnonzero(unmasked[1:] < RANDOMISE_BELOW)
    start = int(below[0]) + 1 if len(below) else n // 2
    generator = np.random.default_rng(seed)
    one, other = (within(randomise_phases(h, start, generator, empty)) for h in (first, second))
    randomised = correlation_of(one, other, n, empty)
    corrected = masked.copy()
    late = np.arange(len(masked)) >= start + 2
    corrected[late] = ((masked - randomised) / np.maximum(1 - randomised, 1e-3))[late]
    return Fsc(frequency, unmasked, masked, np.where(late, randomised, masked), corrected)


def detail_fsc(halves: HalfMaps, whole: Fsc, known_shell: int, mask: np.ndarray | None = None, seed: int = 0,
               empty: Empty | None = None) -> Fsc:
    """The curves of what differs between directions; up to `known_shell` those of the `whole` halves.

    Two hollow spheres agree to a fine shell by their profile alone, however their particles are turned. On the coarsest
    shells, though, symmetric particles look the same from everywhere, and the rest there is noise.
    """
    rest = (Map(angular_part(h.voxels, None if empty is None else empty(h.voxels.shape, torch.float32).numpy()),
                h.pixel_size_a, h.origin_a) for h in (halves.first, halves.second))
    detail = compute_fsc(HalfMaps(*rest), mask, seed, empty)
    known = np.arange(len(whole.frequency)) <= known_shell
    return Fsc(whole.frequency, *(np.where(known, getattr(whole, name), getattr(detail, name))
                                  for name in ("unmasked", "masked", "randomised", "corrected")))


def randomise_phases(voxels: torch.Tensor, first_shell: int, generator: np.random.Generator,
                     empty: Empty | None = None) -> torch.Tensor:
    """The cube with random phases from `first_shell` on and the amplitudes it had."""
    n = voxels.shape[0]

    def chance(slab: slice) -> torch.Tensor:
        return torch.from_numpy(generator.standard_normal((slab.stop - slab.start, n, n), dtype=np.float32))

    spectrum, noise = cube_spectrum(planes_of(voxels), n, empty), cube_spectrum(chance, n, empty)
    for slab in spectrum_slabs(spectrum):
        phase = noise[slab] / noise[slab].abs().clamp(min=1e-20)
        late = shells_3d(n, planes=slab) >= first_shell
        spectrum[slab] = torch.where(late, spectrum[slab].abs() * phase, spectrum[slab])
    return cube_of(spectrum, empty)


def averaged(halves: HalfMaps, empty: Empty | None = None) -> Map:
    """The mean of both halves."""
    first, second = (torch.from_numpy(np.ascontiguousarray(h.voxels)) for h in (halves.first, halves.second))
    mean = mapped(lambda one, other: (one + other) / 2, [first, second], empty)
    return Map(mean.numpy(), halves.first.pixel_size_a, halves.first.origin_a)


def signal_to_noise(fsc: Fsc) -> np.ndarray:
    """Spectral signal-to-noise ratio of one half map per shell, FSC / (1 - FSC), zero from the first empty shell on."""
    curve = np.clip(fsc.corrected, 0.0, 0.999)
    empty = np.flatnonzero(curve[1:] < SIGNAL_LEAST)
    if len(empty):
        curve[int(empty[0]) + 1:] = 0.0
    return curve / (1 - curve)


def sphere_mask(box_px: int, radius_px: float, edge_px: float = 4.0, empty: Empty | None = None) -> np.ndarray:
    """A soft sphere (n, n, n) float32: one to `radius_px`, then a cosine edge."""
    sphere = (empty or in_memory)((box_px,) * 3, torch.float32).numpy()
    for slab in slabs(box_px, 8 * box_px ** 2):
        radius = radii(box_px, slab)
        sphere[slab] = 0.5 + 0.5 * np.cos(np.pi * np.clip((radius - radius_px) / edge_px, 0, 1))
    return sphere


def radii(box_px: int, slab: slice) -> np.ndarray:
    """Distance from the middle of the voxels in some planes z of a cube: (planes, n, n) float64."""
    axis = np.arange(box_px) - box_px // 2
    found: np.ndarray = np.sqrt(axis[slab, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    return found


def solvent_mask(average: np.ndarray, pixel_size_a: float, resolution_a: float, radius_px: float,
                 empty: Empty | None = None) -> np.ndarray:
    """A soft mask around the density of a map; the sphere of `radius_px` where no boundary can be found.

    The map is low-passed, thresholded well above the level of the solvent (its mean and deviation near the sphere's
    surface), reduced to its large connected parts, grown and given a soft edge.
    """
    n = average.shape[0]
    smooth_a = max(15.0, 1.5 * resolution_a)
    smooth = filter_shells(torch.from_numpy(average), low_pass_gain(n, pixel_size_a, smooth_a), empty).numpy()
    rim = smooth[between(n, 0.85 * radius_px, radius_px)]
    inside = between(n, -1.0, radius_px)
    peak = float(np.percentile(smooth[inside], 99.5, overwrite_input=True))
    level = float(np.median(rim))
    threshold = level + max(4 * _deviation(rim), 0.12 * (peak - level))
    body = _large_parts((smooth > threshold) & inside, empty)
    share = body.sum() / inside.sum()
    if not 0.005 < share < 0.8:
        return sphere_mask(n, radius_px, empty=empty)
    return soften(body, grow_px=max(2.0, 0.35 * smooth_a / pixel_size_a), edge_px=5.0, empty=empty)


def between(box_px: int, least_px: float, most_px: float) -> np.ndarray:
    """(n, n, n) which voxels lie farther from the middle than `least_px`, and no farther than `most_px`."""
    held = np.empty((box_px,) * 3, dtype=bool)
    for slab in slabs(box_px, 8 * box_px ** 2):
        radius = radii(box_px, slab)
        held[slab] = (radius <= most_px) & (radius > least_px)
    return held


def _deviation(values: np.ndarray) -> float:
    """Standard deviation from the median absolute deviation: what stands out does not count."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _large_parts(body: np.ndarray, empty: Empty | None = None) -> np.ndarray:
    """Connected parts of at least a tenth of the largest one's volume."""
    labels = (empty or in_memory)(body.shape, torch.int32).numpy()
    count = ndimage.label(body, output=labels)
    if count == 0:
        return body
    sizes = sum(np.bincount(plane.ravel(), minlength=count + 1) for plane in labels)
    sizes[0] = 0
    large = sizes >= 0.1 * sizes.max()
    return np.stack([large[plane] for plane in labels])


def soften(body: np.ndarray, grow_px: float, edge_px: float, empty: Empty | None = None) -> np.ndarray:
    """A binary body grown by `grow_px` with a cosine edge of `edge_px` beyond: float32 in 0..1.

    Only what is no farther than the edge is looked at, slab by slab: distances there are those of the whole.
    """
    soft = (empty or in_memory)(body.shape, torch.float32).numpy()
    soft[:] = 0
    found, reach = ndimage.find_objects(body.view(np.int8)), int(np.ceil(grow_px + edge_px)) + 1
    if not found:
        return soft
    _, y, x = (slice(max(0, one.start - reach), one.stop + reach) for one in found[0])
    step = max(reach, DISTANCE_SLABS * padded.SLAB_BYTES // (DISTANCE_BYTES * body[0, y, x].size) - 2 * reach)
    for start in range(0, len(body), step):
        first, stop = max(0, start - reach), min(start + step, len(body))
        part = body[first:stop + reach, y, x]
        if part.any():
            distance = ndimage.distance_transform_edt(~part)[start - first:stop - first]
            soft[start:stop, y, x] = 0.5 + 0.5 * np.cos(np.pi * np.clip((distance - grow_px) / edge_px, 0, 1))
    return soft


def masked_reference(voxels: torch.Tensor, mask: np.ndarray, empty: Empty | None = None) -> torch.Tensor:
    """The map with its solvent level set to zero and everything outside the mask removed."""
    window = torch.from_numpy(mask)
    density, volume = (torch.zeros((), dtype=torch.float64, device=voxels.device) for _ in range(2))
    for slab in slabs(len(voxels), voxels[0].nbytes):
        outside = 1 - window[slab].to(voxels.device)
        density += (voxels[slab] * outside).sum()
        volume += outside.sum()
    level = density.to(voxels) / volume.to(voxels).clamp(min=1e-6) if float(volume) > 1 else voxels.new_zeros(())
    return mapped(lambda part, inside: (part - level) * inside.to(voxels.device), [voxels, window], empty)


def join_low_resolution(first: torch.Tensor, second: torch.Tensor, last_shell: int,
                        empty: Empty | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Both maps with shells up to `last_shell` replaced by their average, so that the halves keep one orientation."""
    gain = (torch.arange(first.shape[0] // 2 + 1) <= last_shell).float()
    difference = filtered(lambda slab: (first[slab] - second[slab]) / 2, len(first), gain, empty)
    return mapped(torch.sub, [first, difference], empty), mapped(torch.add, [second, difference], empty)


def particle_diameter_px(voxels: np.ndarray) -> float:
    """Diameter of the sphere that holds 98 % of the density above a tenth of the maximum; within the box."""
    n = voxels.shape[0]
    square = (np.arange(n) - n // 2) ** 2
    across = (square[:, None] + square[None, :]).ravel()
    least = 0.1 * voxels.max()
    density = np.zeros(3 * int(square.max()) + 1)
    for z, plane in zip(square, voxels):
        density += np.bincount(across + z, np.where(plane > least, plane, 0).ravel().clip(min=0), len(density))
    total = np.cumsum(density)
    reach = np.sqrt(np.searchsorted(total, 0.98 * total[-1])) if total[-1] > 0 else n / 2
    return float(np.clip(2 * reach, 0.2 * n, 0.95 * n))


def in_memory(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype)
