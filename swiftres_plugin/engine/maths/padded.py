"""Transforms between a cube and the middle of its padded spectrum, one axis after the other, in slabs.

Most of a padded cube is zero, and of what a whole transform gives only the middle is wanted. Leaving out the rest after each
axis takes half the operations and a fifth of the memory. The middle of an axis is its element n//2, in both spaces.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

SLAB_BYTES = 32 << 20  # of what is transformed at once; working memory is about three times that
Empty = Callable[[tuple[int, ...], torch.dtype], torch.Tensor]  # makes arrays as large as maps: in memory, or elsewhere


def beside(values: torch.Tensor, empty: Empty | None) -> Empty:
    """`empty`, or what makes arrays in the memory that holds `values`."""
    return empty or (lambda shape, dtype: torch.empty(shape, dtype=dtype, device=values.device))


def padded_spectrum(voxels: torch.Tensor, padded_px: int, limit: int, divisor: Callable[[slice], torch.Tensor] | None = None,
                    empty: Empty | None = None) -> torch.Tensor:
    """Half spectrum (2K+1, 2K+1, K+1) complex, K = `limit`, of a real cube (n, n, n) in a cube of zeros of `padded_px`.

    What lies beyond the spectrum's own end is zero, and so is its Nyquist frequency. divisor: gives some planes z of what the
    cube is divided by first; empty: makes the arrays.
    """
    n, inner = len(voxels), min(limit, padded_px // 2 - 1)
    width, plane, beyond = 2 * inner + 1, padded_px * (inner + 1), limit - inner
    make, dtype = beside(voxels, empty), voxels.dtype.to_complex()
    planes = make((n, width, inner + 1), dtype)
    for slab in slabs(n, max(plane * dtype.itemsize, n * padded_px * voxels.itemsize)):
        part = voxels[slab] if divisor is None else voxels[slab] / divisor(slab)
        rows = torch.fft.rfft(_from_middle(part, 2, padded_px))[..., :inner + 1]
        planes[slab] = _to_middle(torch.fft.fft(_from_middle(rows, 1, padded_px), dim=1), 1, width)
    spectrum = make((2 * limit + 1, 2 * limit + 1, limit + 1), dtype)
    for slab in slabs(width, plane * dtype.itemsize):
        part = _to_middle(torch.fft.fft(_from_middle(planes[:, slab], 0, padded_px), dim=0), 0, width)
        into = slice(slab.start + beyond, slab.stop + beyond)
        spectrum[:, into] = torch.nn.functional.pad(part, (0, beyond, 0, 0, beyond, beyond))
    spectrum[:, :beyond], spectrum[:, beyond + width:] = 0, 0
    return spectrum


def cropped_cube(columns: Callable[[slice], torch.Tensor], limit: int, padded_px: int, box_px: int,
                 empty: Empty | None = None) -> torch.Tensor:
    """The middle (n, n, n), n = `box_px`, of the cube of `padded_px` behind a half spectrum; inverse of `padded_spectrum`.

    columns: gives the planes y of a slice of the spectrum (2K+1, 2K+1, K+1), K = `limit`, which is never held as a whole.
    """
    inner = min(limit, padded_px // 2 - 1)
    width, skip, plane = 2 * inner + 1, limit - inner, padded_px * (inner + 1)
    first = columns(slice(0, 0))
    make = beside(first, empty)
    planes = make((box_px, width, inner + 1), first.dtype)
    for slab in slabs(width, plane * first.itemsize):
        part = columns(slice(slab.start + skip, slab.stop + skip))[skip:skip + width, :, :inner + 1]
        planes[:, slab] = _to_middle(torch.fft.ifft(_from_middle(part, 0, padded_px), dim=0), 0, box_px)
    cube = make((box_px,) * 3, first.real.dtype)
    for slab in slabs(box_px, plane * first.itemsize):
        rows = _to_middle(torch.fft.ifft(_from_middle(planes[slab], 1, padded_px), dim=1), 1, box_px)
        cube[slab] = _to_middle(torch.fft.irfft(rows, n=padded_px), 2, box_px)
    return cube


def slabs(count: int, bytes_each: int) -> Iterator[slice]:
    """0..count-1 in consecutive pieces of what is worked on at once."""
    step = max(1, SLAB_BYTES // bytes_each)
    return (slice(first, min(first + step, count)) for first in range(0, count, step))


def _from_middle(values: torch.Tensor, axis: int, length: int) -> torch.Tensor:
    """An axis lengthened by zeros to `length`, its middle element first and what lay before that at the end."""
    count = values.shape[axis]
    lead = count // 2
    zeros = values.new_zeros((*values.shape[:axis], length - count, *values.shape[axis + 1:]))
    return torch.cat([values.narrow(axis, lead, count - lead), zeros, values.narrow(axis, 0, lead)], axis)


def _to_middle(values: torch.Tensor, axis: int, length: int) -> torch.Tensor:
    """An axis cut to the `length` elements around its first, which comes to stand in their middle."""
    lead = length // 2
    return torch.cat([values.narrow(axis, values.shape[axis] - lead, lead), values.narrow(axis, 0, length - lead)], axis)
