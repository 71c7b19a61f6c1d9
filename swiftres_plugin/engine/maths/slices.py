"""Central slices of a padded Fourier volume: extraction and insertion, an adjoint pair.

The volume is kept as two real channels on a centred half grid, x >= 0 in the last axis: (2, 2K+1, 2K+1, K+1) with K the
highest padded frequency. Both directions use trilinear interpolation with the same weights; the fall-off that this
interpolation causes in real space, sinc^2 along each axis, is divided out of the map before extraction and after insertion.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from swiftres_plugin.engine.maths.adding import add_parts
from swiftres_plugin.engine.maths.fused import fused_insertion, fused_slices, on_host, point_by_point
from swiftres_plugin.engine.maths.padded import Empty, cropped_cube, padded_spectrum, slabs

PADDING = 2
SHARED = 8  # samples of a slice, at most, that add to one point of the grid: they lie `PADDING` apart
_CORNERS = [(dz, dy, dx) for dz in (0, 1) for dy in (0, 1) for dx in (0, 1)]


def gridding_window(box_px: int, padding: int = PADDING, device: torch.device | str = "cpu",
                    planes: slice = slice(None)) -> torch.Tensor:
    """Real-space fall-off of trilinear interpolation, prod sinc^2(x / (padding n)): (n, n, n), or some planes z of it."""
    x = (torch.arange(box_px, device=device) - box_px // 2) / (padding * box_px)
    w = torch.sinc(x) ** 2
    return w[planes, None, None] * w[None, :, None] * w[None, None, :]


def fourier_volume(voxels: torch.Tensor, last_shell: int, padding: int = PADDING, empty: Empty | None = None) -> torch.Tensor:
    """Padded transform of a map (n, n, n), cropped to what slices up to `last_shell` read: (2, 2K+1, 2K+1, K+1).

    In memory the two channels of a point lie side by side (a permuted view), as `slices_and_gradients` reads them.
    Scaled so that a slice is the orthonormal two-dimensional transform of the sum over z.
    """
    n = voxels.shape[0]
    spectrum = padded_spectrum(voxels, padding * n, padded_limit(last_shell, padding),
                               lambda planes: n * gridding_window(n, padding, voxels.device, planes), empty)
    return torch.view_as_real(spectrum).permute(3, 0, 1, 2)


def padded_limit(last_shell: int, padding: int = PADDING) -> int:
    """K: the highest padded frequency a slice up to `last_shell` may touch."""
    return int(padding * (last_shell + 0.5)) + 1


def slice_coordinates(image_to_volume: torch.Tensor, wave_px: torch.Tensor,
                      padding: int = PADDING) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded volume coordinates (B, L, 3) of slice samples with x made non-negative, and the sign +-1 (B, L) that did it."""
    plane = image_to_volume[:, :, :2] * padding
    points = wave_px.to(plane.dtype) @ plane.transpose(1, 2)
    sign = 1 - 2 * (points[..., 0] < 0).to(plane.dtype)
    return points * sign[..., None], sign


def _normalised(points: torch.Tensor, limit: int) -> torch.Tensor:
    """Coordinates as `grid_sample` wants them: -1..1 from the first to the last grid point."""
    scale = points.new_tensor([2 / limit, 1 / limit, 1 / limit])
    return (points * scale + points.new_tensor([-1.0, 0.0, 0.0]))[:, None, None]


def extract_slices(volume: torch.Tensor, image_to_volume: torch.Tensor, wave_px: torch.Tensor) -> torch.Tensor:
    """Slices at rotations (B, 3, 3), sampled at `wave_px` (L, 2): (B, L) complex64."""
    if point_by_point(volume) and reaches(volume, image_to_volume, wave_px):
        return fused_slices(volume, image_to_volume, wave_px)
    return plain_slices(volume, image_to_volume, wave_px)


def reaches(volume: torch.Tensor, image_to_volume: torch.Tensor, wave_px: torch.Tensor) -> bool:
    """Whether a volume holds all neighbours of slices at these frequencies; matrices (B, 3, 3) may stretch."""
    square = wave_px.to(torch.float32).square().sum(1).max() * image_to_volume[:, :, :2].square().sum(1).amax()
    return PADDING * 1.005 * float(square.sqrt()) < volume.shape[-1] - 1


def plain_slices(volume: torch.Tensor, image_to_volume: torch.Tensor, wave_px: torch.Tensor) -> torch.Tensor:
    """The same on any device, step by step."""
    points, sign = slice_coordinates(image_to_volume, wave_px)
    values = _sample(volume, _normalised(points, volume.shape[-1] - 1))
    return torch.complex(values[:, 0], values[:, 1] * sign)


def _sample(volume: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    batch = volume.expand(len(grid), *volume.shape)
    return torch.nn.functional.grid_sample(batch, grid, align_corners=True)[:, :, 0, 0]


def slices_and_gradients(volume: torch.Tensor, image_to_volume: torch.Tensor,
                         wave_px: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Slices (B, L) and their exact gradients (B, L, 3) along the image axes x, y, beam, per cycle per box; complex64.

    The gradient is that of the interpolated volume itself, so it is the true derivative of what `extract_slices` returns.
    """
    points, sign = slice_coordinates(image_to_volume, wave_px)
    value, along_x, along_y, along_z = _interpolate(volume, points.reshape(-1, 3))
    slices = torch.complex(value[:, 0].view_as(sign), value[:, 1].view_as(sign) * sign)
    gradient = torch.stack([along_x, along_y, along_z], dim=1).view(*sign.shape, 3, 2) * PADDING
    # moving against the flipped coordinate changes the sign of the derivative; conjugation that of the imaginary part
    turned = torch.complex(gradient[..., 0] * sign[..., None], gradient[..., 1])
    return slices, turned @ image_to_volume.to(turned.dtype)


def _interpolate(volume: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Trilinear value and its derivatives along x, y, z at points (N, 3): four tensors (N, 2), real and imaginary.

    Neighbours in x lie side by side in memory, so four reads fetch the eight corners: nearly three times faster on a
    processor than `grid_sample` and its backward pass, which read every corner once per channel and derivative.
    """
    limit, (height, width) = volume.shape[-1] - 1, volume.shape[2:]
    flat = volume.permute(1, 2, 3, 0).contiguous().view(-1, 2)  # a copy only of a volume that is laid out otherwise
    pairs = flat.as_strided((len(flat) - 1, 4), (2, 1))
    corner = points.floor()
    fx, fy, fz = (points - corner).split(1, dim=1)
    corner = corner.to(torch.int64)
    base = ((corner[:, 2] + limit) * height + corner[:, 1] + limit) * width + corner[:, 0]
    c00, c01, c10, c11 = (pairs.index_select(0, base + step) for step in (0, width, height * width, (height + 1) * width))
    front, back = torch.lerp(c00, c01, fy), torch.lerp(c10, c11, fy)
    middle, rise = torch.lerp(front, back, fz), torch.lerp(c01 - c00, c11 - c10, fz)
    depth = back - front
    return (torch.lerp(middle[:, :2], middle[:, 2:], fx), middle[:, 2:] - middle[:, :2],
            torch.lerp(rise[:, :2], rise[:, 2:], fx), torch.lerp(depth[:, :2], depth[:, 2:], fx))


def empty_sums(last_shell: int, device: torch.device | str = "cpu", rows: int | None = None) -> torch.Tensor:
    """Zero sums (3, 2K+1, 2K+1, K+1) for insertion: real, imaginary, weight; or so many of their planes y.

    In memory the three of a point lie side by side (a permuted view).
    """
    k = padded_limit(last_shell)
    height = 2 * k + 1 if rows is None else rows
    return torch.zeros((2 * k + 1, height, k + 1, 3), dtype=torch.float32, device=device).permute(3, 0, 1, 2)


def insert_slices(sums: torch.Tensor, values: torch.Tensor, weights: torch.Tensor, image_to_volume: torch.Tensor,
                  wave_px: torch.Tensor, place: torch.Tensor | None = None) -> None:
    """Add slices `values` (B, L) complex and `weights` (B, L) into `sums`, in place: the adjoint of `extract_slices`.

    place: (2K+1,) int64, where each plane y of the whole grid lies in `sums`, -1 for those that it does not hold.
    """
    if place is not None:
        insert_into_planes(sums, values, weights, image_to_volume, wave_px, place)
    elif on_host(sums):
        fused_insertion(sums, values, weights, image_to_volume, wave_px)
    else:
        insert_plainly(sums, values, weights, image_to_volume, wave_px)


def insert_plainly(sums: torch.Tensor, values: torch.Tensor, weights: torch.Tensor, image_to_volume: torch.Tensor,
                   wave_px: torch.Tensor) -> None:
    """The same on any device, step by step."""
    corner, fraction, channels = _cells(sums, values, weights, image_to_volume, wave_px)
    height, width = sums.shape[2], sums.shape[3]
    base = (corner[:, 2] * height + corner[:, 1]) * width + corner[:, 0]
    parts = ((base + ((dz * height + dy) * width + dx), channels * _share(fraction, dz, dy, dx)) for dz, dy, dx in _CORNERS)
    add_parts(_points(sums), 0, parts, channels, SHARED * len(values))


def insert_into_planes(sums: torch.Tensor, values: torch.Tensor, weights: torch.Tensor, image_to_volume: torch.Tensor,
                       wave_px: torch.Tensor, place: torch.Tensor) -> None:
    """What of the slices falls into the planes y that `sums` (3, 2K+1, rows, K+1) hold; see `insert_slices`."""
    if on_host(sums):
        fused_insertion(sums, values, weights, image_to_volume, wave_px, place)
        return
    corner, fraction, channels = _cells(sums, values, weights, image_to_volume, wave_px)
    height, width = sums.shape[2:]

    def part(dz: int, dy: int, dx: int) -> tuple[torch.Tensor, torch.Tensor]:
        row = place[corner[:, 1] + dy]
        held = torch.nonzero(row >= 0)[:, 0]
        base = ((corner[held, 2] + dz) * height + row[held]) * width + corner[held, 0] + dx
        return base, channels[held] * _share(fraction[held], dz, dy, dx)

    add_parts(_points(sums), 0, (part(*one) for one in _CORNERS), channels, SHARED * len(values))


def _points(sums: torch.Tensor) -> torch.Tensor:
    """Sums (3, ...) as a view (N, 3) of the points of the grid."""
    return sums.permute(1, 2, 3, 0).view(-1, 3)


def _cells(sums: torch.Tensor, values: torch.Tensor, weights: torch.Tensor, image_to_volume: torch.Tensor,
           wave_px: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of every sample: the corner x, y, z of its cell (N, 3) int64, its place in there (N, 3), and what is added (N, 3)."""
    points, sign = slice_coordinates(image_to_volume, wave_px)
    limit = sums.shape[-1] - 1
    points = points.reshape(-1, 3) + points.new_tensor([0.0, limit, limit])
    corner = points.floor()
    channels = torch.stack([values.real, values.imag * sign, weights], dim=-1).view(-1, 3)
    return corner.to(torch.int64), points - corner, channels


def _share(fraction: torch.Tensor, dz: int, dy: int, dx: int) -> torch.Tensor:
    """Weights (N, 1) of a corner of the cells, for places (N, 3) in them."""
    fx, fy, fz = fraction.split(1, dim=1)
    return (fz if dz else 1 - fz) * (fy if dy else 1 - fy) * (fx if dx else 1 - fx)


def complete_central_plane(sums: torch.Tensor) -> torch.Tensor:
    """`sums` with the plane x = 0 completed, in place, by what the conjugate halves of the slices would have put there."""
    plane = sums[..., 0]
    plane += plane.flip(1, 2) * plane.new_tensor([1.0, -1.0, 1.0])[:, None, None]
    return sums


def symmetrised(sums: torch.Tensor, operators: np.ndarray) -> torch.Tensor:
    """Completed sums (3, 2K+1, 2K+1, K+1) added up at all mates by a group (M, 3, 3) of turns that map axes onto axes.

    The same as inserting every slice at each of its mates, but for rounding.
    """
    if len(operators) == 1:
        return sums
    behind = sums[..., 1:].flip(1, 2, 3) * sums.new_tensor([1.0, -1.0, 1.0])[:, None, None, None]
    full = torch.cat([behind, sums], dim=3)
    middle, total = sums.shape[-1] - 1, torch.zeros_like(sums)
    for operator in operators:
        source, sign = np.abs(operator).argmax(1), operator.sum(1)  # (operator @ k)[i] is sign[i] * k[source[i]]
        from_axis = [int(np.flatnonzero(source == axis)[0]) for axis in (2, 1, 0)]  # the grid's axes are z, y, x
        flips = [place for place, axis in enumerate(from_axis, 1) if sign[axis] < 0]
        total += full.permute(0, *(3 - axis for axis in from_axis)).flip(flips)[..., middle:]
    return total


def sums_to_map(columns: Callable[[slice], torch.Tensor], limit: int, box_px: int, padding: int = PADDING,
                empty: Empty | None = None) -> torch.Tensor:
    """Map (n, n, n) of a centred half spectrum (2K+1, 2K+1, K+1) complex, K = `limit`: inverse of `fourier_volume`.

    columns: gives the planes y of a slice of the spectrum.
    """
    cube = cropped_cube(columns, limit, padding * box_px, box_px, empty)
    for slab in slabs(box_px, cube[0].nbytes):
        cube[slab] = cube[slab] * box_px / gridding_window(box_px, padding, cube.device, slab)
    return cube
